"""Import TVM without torch, which it imports wherever it is installed: two thirds of the time.

It would only know torch's types by it, and tensors of torch pass by DLPack all the same.  This is
for processes of our own alone: what a program that imports us does with TVM is its own.

`python -m hybridc.compiler.processes.tvm_alone MODULE` runs a module so.
"""

import importlib.abc
import runpy
import sys
import threading
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

_TVM = ("tvm", "tvm_ffi")  # and its bindings, which may be imported before


class _NoTorchForTvm(importlib.abc.MetaPathFinder):
    """Finds nothing, and ends the search for torch in the thread that is importing TVM."""

    def __init__(self) -> None:
        self._threads: dict[str, int] = {}  # which was the last to look for each part of TVM

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Raise ModuleNotFoundError, as TVM expects where torch is not installed."""
        if fullname in _TVM:
            self._threads[fullname] = threading.get_ident()
        if fullname == "torch" and any(map(self._is_importing, _TVM)):
            raise ModuleNotFoundError("TVM is imported without torch", name=fullname)
        return None

    def _is_importing(self, name: str) -> bool:
        """Whether this thread is; a module that is being imported is looked for no more."""
        spec = getattr(sys.modules.get(name), "__spec__", None)
        here = self._threads.get(name) == threading.get_ident()
        return here and getattr(spec, "_initializing", False)


def hide_torch() -> None:
    """Have TVM, when it is imported, take torch for not installed; others may import it."""
    sys.meta_path.insert(0, _NoTorchForTvm())


if __name__ == "__main__":
    hide_torch()
    runpy.run_module(sys.argv[1], run_name="__main__", alter_sys=True)
