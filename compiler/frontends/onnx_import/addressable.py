"""The sizes that a model's tensors may have."""

import math

from hybridc.compiler.errors import ModelError
from hybridc.compiler.frontends.onnx_import.folding import StaticGraph

# Kernels index with 32 bits.
_MOST_ELEMENTS = 2**31 - 1
# numpy's arrays have 64, and where answers are compared one is added.
_MOST_AXES = 63


def require(static: StaticGraph) -> None:
    """Raise ModelError for a tensor that no array can be, or no kernel can index."""
    for name, kind in static.types.items():
        axes, shape = len(kind.tensor_type.shape.dim), static.shape(name) or ()
        if axes > _MOST_AXES:
            raise ModelError(f"tensor {name!r} has {axes} axes; the most is {_MOST_AXES}")
        size = math.prod(shape)
        if size > _MOST_ELEMENTS:
            raise ModelError(f"tensor {name!r} has {size} elements; the most is {_MOST_ELEMENTS}")
