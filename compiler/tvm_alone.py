"""Import TVM without torch, which it imports wherever it is installed: two thirds of the time.

It would only know torch's types by it, and tensors of torch pass by DLPack all the same.  This is
for processes of our own alone: what a program that imports us does with TVM is its own.

`python -m hybridc.compiler.tvm_alone MODULE` runs a module so.
"""

import importlib.abc
import runpy
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

_TVM = ("tvm", "tvm_ffi")  # and its bindings, which may be imported before


class _NoTorchForTvm(importlib.abc.MetaPathFinder):
    """Finds nothing, and ends the search for torch while TVM is being imported."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Raise ModuleNotFoundError, as TVM expects where torch is not installed."""
        if fullname == "torch" and any(map(_is_importing, _TVM)):
            raise ModuleNotFoundError("TVM is imported without torch", name=fullname)
        return None


def _is_importing(name: str) -> bool:
    spec = getattr(sys.modules.get(name), "__spec__", None)
    return getattr(spec, "_initializing", False)


def hide_torch() -> None:
    """Have TVM, when it is imported, take torch for not installed; others may import it."""
    sys.meta_path.insert(0, _NoTorchForTvm())


if __name__ == "__main__":
    hide_torch()
    runpy.run_module(sys.argv[1], run_name="__main__", alter_sys=True)
