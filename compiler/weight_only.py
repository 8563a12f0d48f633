"""The loop nest of products with weights of 8 or 4 bits, dequantised within the kernel."""

from collections.abc import Sequence
from math import prod
from typing import Any

from tvm import te, tirx

from hybridc.compiler.contractions import flatten, unflatten
from hybridc.compiler.interfaces import PrimFunc
from hybridc.compiler.model import Array
from hybridc.compiler.tensor_expressions import computed, finished, product_of, reduced, tensor

# What marks the product, and the name of the block that dequantises.
KIND = "weight-only-dense"
UNPACK = "unpack"
HALF_A_BYTE = 4
_ZERO = 8  # what the lower half of a byte has too much


def dense(
    shape: Sequence[int], integers: Array, scales: Array, columns: int, bits: int
) -> PrimFunc:
    """`out[..., n] = sum_k x[..., k] * q[k, n] * scale[k // size, n]`, all in float32.

    `integers` of `bits` and `scales` are what `group_quantization.packed` made for x of `shape`;
    where its groups are longer than the last axis of x, zeros are put behind that.  The blocks are those of
    `contractions.dense`, with one between weights and product that makes float32 of them.
    """
    panels, groups, width = scales.shape
    rows, inputs = prod(shape[:-1]), shape[-1]
    pairs = bits == HALF_A_BYTE
    depth = integers.shape[1] * (2 if pairs else 1)
    x = tensor(shape, "x", "float32")
    q = tensor(integers.shape, "weight", "int8")
    s = tensor(scales.shape, "scale", "bfloat16")
    whole = _extended(x, depth)

    def weight(p: Any, k: Any, lane: Any) -> Any:
        scale = s[p, k // (depth // groups), lane].astype("float32")
        return _low_or_high(q, p, k, lane, scale) if pairs else _whole(q, p, k, lane, scale)

    unpacked = computed((panels, depth, width), weight, name=UNPACK)
    k = reduced(depth, "k")
    product = computed(
        (rows, panels * width),
        lambda m, n: te.sum(
            whole[*unflatten(m, shape[:-1]), k] * unpacked[n // width, k, n % width], axis=k
        ),
        name="product",
        attrs=product_of(KIND, 2 * rows * columns * inputs),
    )
    out = computed(
        (*shape[:-1], columns),
        lambda *index: product[flatten(index[:-1], shape[:-1]), index[-1]],
        name="output",
    )
    return finished([x, q, s, out])


def _whole(q: Any, panel: Any, k: Any, lane: Any, scale: Any) -> Any:
    return q[panel, k, lane].astype("float32") * scale


def _low_or_high(q: Any, panel: Any, k: Any, lane: Any, scale: Any) -> Any:
    """Both halves of a byte that was widened with its sign.

    The upper one is then a shift away; the lower one is masked, and what it has too much taken
    off by the multiplication that scales it: all of it is exact.
    """
    byte = q[panel, k // 2, lane].astype("int32")
    low = (byte & 0x0F).astype("float32") * scale - scale * tirx.const(_ZERO, "float32")
    high = (byte >> 4).astype("float32") * scale
    return tirx.Select(k % 2 == 0, low, high)


def _extended(x: Any, depth: int) -> Any:
    """X with zeros behind its last axis, up to `depth`."""
    *lead, inputs = (int(extent) for extent in x.shape)
    if inputs == depth:
        return x

    def element(*index: Any) -> Any:
        return tirx.if_then_else(index[-1] < inputs, x[index], tirx.const(0, "float32"))

    return computed((*lead, depth), element, name="pad")
