"""The loop nest of softmax with one division for each row.

TVM divides every element by the row's sum, which takes as long as half of its exponential.
"""

from typing import Any

from tvm import te, tirx, topi

from hybridc.compiler.ir.rewrite import Expr, shape
from hybridc.compiler.kernels.indexing.joins import is_static


def softmax(builder: Any, call: Any) -> Expr:
    """Lower `relax.nn.softmax` in float32: exponentials times the inverse of their sum.

    The largest exponential is 1, so the inverse is between 0 and 1.
    """
    data = call.args[0]
    if not is_static(data) or str(data.ty.dtype) != "float32" or not _rows(shape(data)):
        return call.op.get_attr("FLegalize")(builder, call)
    axis = int(call.attrs.axis) % len(shape(data))

    def kernel(x: Any) -> Any:
        largest = topi.max(x, axis)

        def row(index: Any) -> list[Any]:
            return [*index[:axis], *index[axis + 1 :]]

        powers = te.compute(
            x.shape, lambda *i: tirx.exp(x(*i) - largest(*row(i))), name="exponentials"
        )
        sums = topi.sum(powers, axis)
        inverse = te.compute(
            sums.shape, lambda *i: tirx.const(1.0, "float32") / sums(*i), name="inverse"
        )
        return te.compute(x.shape, lambda *i: powers(*i) * inverse(*row(i)), name="softmax")

    return builder.call_te(kernel, data, primfunc_name_hint="softmax")


def _rows(extents: tuple[int, ...]) -> bool:
    """Whether there are rows, and something in them."""
    return len(extents) > 1 and 0 not in extents
