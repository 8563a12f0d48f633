"""A deep-learning compiler that keeps a contract.

`compile` makes an `Artifact` from a model, and `InferenceSession` runs it.  Names are imported when
they are first used, so `import hybridc` itself is fast.
"""

import importlib
from typing import TYPE_CHECKING, Any

from hybridc.compiler import settings
from hybridc.compiler.processes import forkable

if TYPE_CHECKING:
    from hybridc.compiler.artifacts.artifact import Artifact
    from hybridc.compiler.assurance.contract import Contract
    from hybridc.compiler.configuration.config import HybridConfig
    from hybridc.compiler.driver import compile  # noqa: A004 - the verb that users look for
    from hybridc.compiler.dynamo.torch_backend import torch_backend
    from hybridc.compiler.runtime.session import InferenceSession

    __version__: str

forkable.spare_driver()
settings.provide_home()
settings.look_less()

__all__ = [
    "Artifact",
    "Contract",
    "HybridConfig",
    "InferenceSession",
    "__version__",
    "compile",
    "torch_backend",
]

_HOMES = {
    "Artifact": "artifacts.artifact",
    "Contract": "assurance.contract",
    "HybridConfig": "configuration.config",
    "InferenceSession": "runtime.session",
    "compile": "driver",
    "torch_backend": "dynamo.torch_backend",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used (PEP 562)."""
    if name == "__version__":
        from importlib.metadata import version  # takes as long as all else here

        return version("hybridc")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"hybridc.compiler.{_HOMES[name]}")
    return getattr(module, name)


def __dir__() -> list[str]:
    """The public names, imported or not."""
    return __all__
