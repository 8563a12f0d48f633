"""TopK of as many elements as follow from open sizes, such as the smaller of 300 and all."""

import tvm
from tvm import relax

from hybridc.compiler.errors import UnsupportedError
from hybridc.compiler.frontends.onnx_import.open_node import Expr, OpenNode

_SORTED = frozenset({"float16", "float32", "float64", "int32", "int64"})


def top_k(node: OpenNode) -> list[Expr] | None:
    """All elements in their order, cut off; None for a number that is known."""
    taken = node.list(1) if len(node.inputs) > 1 else None
    if taken is None or isinstance(taken[0], int):
        return None
    x, extents = node.inputs[0], node.shape()
    if str(x.ty.dtype) not in _SORTED:
        raise UnsupportedError(f"{x.ty.dtype} and a number that is not constant")
    axis = node.options.get("axis", -1) % len(extents)
    if not node.sizes.holds(taken[0] <= extents[axis]):
        raise UnsupportedError(f"{taken[0]} of {extents[axis]} elements")
    node.sizes.raise_until_positive(taken[0], "a TopK takes an element")
    largest = bool(node.options.get("largest", 1))
    both = relax.op.topk(x, k=-1, axis=axis, ret_type="both", largest=largest, dtype="int64")
    ends = [relax.prim_value(0)], [relax.prim_value(taken[0])], [relax.prim_value(1)]
    return [
        relax.op.strided_slice(tvm.ir.TupleGetItem(both, part), [axis], *ends, assume_inbound=True)
        for part in (0, 1)
    ]
