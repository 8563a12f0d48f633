"""Import TVM so that forks of the process can use a GPU.

TVM's bindings import torch where it is installed and ask it for a GPU.  By default torch asks
NVIDIA's driver, which that starts, and no fork of a process that started it can use it any more.
"""

import importlib.abc
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

from hybridc.compiler import settings

_BINDINGS = "tvm_ffi"


class _StartsNoDriver(importlib.abc.MetaPathFinder):
    """Has the bindings, as others find them, imported while torch asks NVML."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Nothing for what are no bindings."""
        if fullname != _BINDINGS:
            return None
        others = [finder for finder in sys.meta_path if finder is not self]
        found = (finder.find_spec(fullname, path, target) for finder in others)
        spec = next((spec for spec in found if spec is not None), None)
        loader = None if spec is None else spec.loader
        if loader is not None:
            execute = loader.exec_module

            def calmly(module: ModuleType) -> None:
                with settings.gpus_asked_of_nvml():
                    execute(module)

            loader.exec_module = calmly  # type: ignore[method-assign]
        return spec


def spare_driver() -> None:
    """From now on TVM's bindings start no driver when they are imported."""
    if not any(isinstance(finder, _StartsNoDriver) for finder in sys.meta_path):
        sys.meta_path.insert(0, _StartsNoDriver())
