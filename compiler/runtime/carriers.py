"""Elements of less than a byte, and what carries them in compiled code: one byte each.

TVM's tensors and ONNX Runtime's arrays cannot hold them.  A carrier holds every number of its type,
so that nothing is rounded on the way; ml_dtypes has both as numpy types.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import ml_dtypes  # teaches numpy their names
import numpy as np

CARRIERS: Mapping[str, str] = MappingProxyType(
    {
        "int2": "int8",
        "int4": "int8",
        "uint2": "uint8",
        "uint4": "uint8",
        "float4_e2m1fn": ml_dtypes.float8_e4m3fn.__name__,
    }
)

# By numpy's types, of which a call asks; their names take microseconds to spell.
_HELD = MappingProxyType({np.dtype(one): np.dtype(held) for one, held in CARRIERS.items()})


def carrier(dtype: str) -> str:
    """The type in which compiled code holds elements of a type; most are their own."""
    return CARRIERS.get(dtype, dtype)


def carried(array: Any) -> Any:
    """An array as compiled code holds it; the array itself where that is as it is."""
    held = _HELD.get(array.dtype)
    return array if held is None else array.astype(held)


def declared(array: Any, dtype: str) -> Any:
    """What compiled code made, in the type that it stands for."""
    return array.astype(np.dtype(dtype)) if dtype in CARRIERS else array
