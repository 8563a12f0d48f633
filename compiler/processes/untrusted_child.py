"""The process that reads models nobody vouches for; `untrusted` holds the other end."""

import importlib
from pathlib import Path

from hybridc.compiler import frontend
from hybridc.compiler.model import Model, random_feed
from hybridc.compiler.processes import untrusted
from hybridc.compiler.processes.child import Json, serve


class Reader:
    """Loads a model, then runs its reference, each within limits."""

    def __init__(self) -> None:
        self._model: Model | None = None

    def __call__(self, request: Json) -> Json:
        """Do what the request's `do` says."""
        match request["do"]:
            case "start":
                for name in ("tvm.relax.frontend.onnx", "onnxruntime"):
                    importlib.import_module(name)
            case "load":
                self._model = None
                untrusted.limit(request["seconds"], request["memory"])
                self._model = frontend.load(Path(request["path"]), shapes=request["shapes"])
            case _:
                assert self._model is not None
                untrusted.limit(request["seconds"], request["memory"])
                self._model.reference(random_feed(self._model.inputs))
        return {}


if __name__ == "__main__":
    serve(Reader())
