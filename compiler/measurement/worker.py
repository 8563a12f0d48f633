"""A peer's own process: the parent holds a `Worker`, the child is this module run as a program.

The first request prepares the peer, each later one takes samples.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from hybridc.compiler.artifacts import specs
from hybridc.compiler.errors import HybridcError
from hybridc.compiler.measurement.measure import Samples, latency
from hybridc.compiler.measurement.peer import Call, peers
from hybridc.compiler.model import TensorSpec, random_feed
from hybridc.compiler.processes.child import Child, ChildError, Json, serve

# A peer that has not answered after so many seconds is given up: Inductor compiles for minutes.
TIMEOUT = 900.0


class PeerError(HybridcError):
    """A peer could not load or run the model."""


class Worker:
    """Starts a peer's process; a context manager that ends it."""

    def __init__(self, peer: str, model: Path, plugins: Sequence[Path] = ()) -> None:
        self.peer = peer
        self._model = model
        self._plugins = plugins

    def __enter__(self) -> Self:
        self._child = Child("hybridc.compiler.measurement.worker")
        return self

    def __exit__(self, *_: object) -> None:
        self._child.kill()

    def prepare(self, inputs: Sequence[TensorSpec], threads: int, seed: int) -> None:
        """Load the model.  Raises PeerError with what the peer said."""
        self._ask(
            {
                "peer": self.peer,
                "model": str(self._model.resolve()),
                "plugins": [str(path.resolve()) for path in self._plugins],
                "inputs": list(map(specs.to_json, inputs)),
                "seed": seed,
                "threads": threads,
            }
        )

    def sample(self, seconds: float, warmup: float) -> Samples:
        """Take one turn's samples.  Raises PeerError if the call fails."""
        return Samples(tuple(self._ask({"seconds": seconds, "warmup": warmup})["seconds"]))

    def _ask(self, request: Json) -> Mapping[str, Any]:
        try:
            answer = self._child.ask(request, TIMEOUT)
        except ChildError as error:
            raise PeerError(str(error)) from None
        if "error" in answer:
            raise PeerError(answer["error"])
        return answer


def main() -> None:
    """Serve the parent."""
    prepared: list[Call] = []

    def answer(request: Json) -> Json:
        if prepared:
            return {"seconds": latency(prepared[0], **request).seconds}
        prepared.append(_prepare(request))
        return {}

    serve(answer)


def _prepare(request: Json) -> Callable[[], object]:
    """Build the peer from its text and load the model, on inputs that every peer makes alike."""
    inputs = specs.from_json(request["inputs"])
    feed = random_feed(inputs, request["seed"])
    plugins = list(map(Path, request["plugins"]))
    peer = peers().create(request["peer"]).with_plugins(plugins)
    return peer.prepare(Path(request["model"]), feed, request["threads"])


if __name__ == "__main__":
    main()
