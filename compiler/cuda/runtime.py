"""TVM's runtime for CUDA, a library of its own, which TVM leaves out silently if it cannot load.

It wants NVIDIA's driver and `libcudart`.  The latter is where a toolkit is installed, or in a wheel
of PyPI, where no loader looks: it is loaded from there first.
"""

import ctypes
import importlib.util
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from hybridc.compiler import settings
from hybridc.compiler.cuda.driver import NoGpuError
from hybridc.compiler.cuda.toolchain import EXTRA

_CUDART = "libcudart.so.13"
_SIDECAR = "libtvm_runtime_cuda.so"
_REGISTERED = "device_api.cuda"


def device(index: int) -> Any:
    """TVM's device for a GPU.  Raises NoGpuError where TVM's runtime for CUDA cannot be loaded."""
    import tvm

    ready()
    return tvm.cuda(index)


@cache
def ready() -> None:
    """Have TVM's runtime for CUDA loaded.  Raises NoGpuError where it cannot be, and says why."""
    import tvm

    if tvm.get_global_func(_REGISTERED, allow_missing=True) is not None:
        return
    if not any(_loads(name) for name in (_CUDART, *map(str, shipped()))):
        raise NoGpuError(f"{_CUDART} is not found, in no toolkit and no wheel; {EXTRA}")
    library = Path(str(tvm.__file__)).parent / "lib" / _SIDECAR
    try:
        ctypes.CDLL(str(library))  # what it offers it registers by itself
    except OSError as error:
        raise NoGpuError(f"TVM's runtime for CUDA cannot be loaded: {error}") from None


def shipped() -> Iterator[Path]:
    """Where `libcudart` may lie: NVIDIA's wheels, a toolkit that the user names, the usual one."""
    spec = importlib.util.find_spec("nvidia")
    for root in (spec.submodule_search_locations or ()) if spec else ():
        yield from sorted(Path(root).glob(f"*/lib/{_CUDART}"))
    home = settings.cuda_home()
    for toolkit in (*([home] if home else []), Path("/usr/local/cuda")):
        yield toolkit / "lib64" / _CUDART


def _loads(name: str) -> bool:
    try:
        # By its name it is then found by whatever else needs it.
        ctypes.CDLL(name, ctypes.RTLD_GLOBAL)
    except OSError:
        return False
    return True
