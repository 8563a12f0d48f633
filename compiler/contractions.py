"""Loop nests of convolutions and matrix products, in the data layout that the CPU rules want.

Every function here returns a TIR function of up to four blocks:

* `pad` or `pack`: brings an operand into the layout that the product reads,
* `product`: the multiply-add; its last axis counts output channels, rounded up to whole vectors,
* `output`: the product without the rounding, in the shape of the operator's result.

Weights come packed as `[N / lanes, ..., K, lanes]`, so that one vector load brings the weights of
`lanes` output channels and successive k lie behind each other; activations keep channels last.
Types narrower than 32 bits have one more axis, `[N / lanes, ..., K / group, lanes, group]`: the
`group` successive k of one lane whose products a single instruction adds up.
Register tiles, loop order and threads are the schedule rules' business and do not show here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from tvm import te, tirx

from hybridc.compiler import vector_width
from hybridc.compiler.interfaces import PrimFunc
from hybridc.compiler.model import Array
from hybridc.compiler.target import Target
from hybridc.compiler.tensor_expressions import (
    computed,
    finished,
    flatten,
    pad2d,
    product_of,
    reduced,
    tensor,
    unflatten,
)


@dataclass(frozen=True)
class Conv2d:
    """A convolution's attributes; `padding` is top, left, bottom, right, and filled with `fill`.

    `inputs` are the input channels that one output is asked to read.  Groups that were merged
    read more, but `groups` counts them as they are read.
    """

    strides: tuple[int, int]
    padding: tuple[int, int, int, int]
    dilation: tuple[int, int]
    groups: int
    inputs: int
    fill: int = 0

    def output_size(self, size: tuple[int, int], kernel: tuple[int, int]) -> tuple[int, int]:
        """Height and width of the output for an input of `size`."""
        top, left, bottom, right = self.padding
        pads = (top + bottom, left + right)
        height, width = (
            (size[i] + pads[i] - self.dilation[i] * (kernel[i] - 1) - 1) // self.strides[i] + 1
            for i in (0, 1)
        )
        return height, width

    @property
    def pointwise(self) -> bool:
        """Whether rows can be taken as they lie: no stride, no padding."""
        return self.strides == (1, 1) and self.padding == (0, 0, 0, 0)


def round_up(value: int, multiple: int) -> int:
    """The least multiple that is not below `value`."""
    return -(-value // multiple) * multiple


# The block that widens activations, each once and not at every use.
WIDEN = "widen"
# Products are added up in these types; what is not named here, in its own.
_ACCUMULATORS = {"bfloat16": "float32", "float16": "float32", "int8": "int32"}
# Bits of a lane, in which products are added up.
_LANE = 32


def group_of(dtype: str) -> int:
    """Successive k that a lane takes at once of weights of this type, where the CPU can.

    No instruction adds up products of neighbours in float16.
    """
    return 1 if dtype == "float16" else max(1, _LANE // _bits(dtype))


def group_for(dtype: str, target: Target) -> int:
    """Successive k that a lane of the target takes at once of weights of this type.

    Four bytes take an instruction that adds up their products in 32 bits.  The older one adds up
    two in 16 bits and saturates: without the newer, bytes are multiplied in pairs of 16 bits.
    """
    return 2 if dtype == "int8" and not target.multiplies_bytes else group_of(dtype)


def pack_matrix(weight: Array, lanes: int, group: int = 0) -> Array:
    """Pack `[K, N]` by `lanes` 32-bit columns and `group` successive k, with zeros behind both.

    The group is that of the weights' type where none is given.
    """
    k, n = weight.shape
    group = group or group_of(weight.dtype.name)
    padded = np.zeros((round_up(k, group), round_up(n, lanes)), weight.dtype)
    padded[:k, :n] = weight
    packed = padded.reshape(-1, group, padded.shape[1] // lanes, lanes).transpose(2, 0, 3, 1)
    return np.ascontiguousarray(packed if group > 1 else packed[..., 0])


def pack_filter(weight: Array, groups: int, lanes: int, group: int = 0) -> tuple[Array, int]:
    """Pack `[O, KH, KW, I / groups]` as `[O / lanes, KH, KW, I / groups, lanes]`.

    Narrow types are packed by `group` input channels as `pack_matrix` does.
    A vector must not straddle two groups.  Where a group's outputs are no whole number of
    vectors, neighbouring groups are merged into one of block-diagonal weights: more
    multiplications by zero, but whole vectors.  Returns the packed weights and the groups left.
    """
    outputs, height, width, inputs = weight.shape
    merge = vector_width.merged(outputs // groups, groups, lanes)
    if merge > 1:
        dense = np.zeros((groups // merge, merge, outputs // groups, height, width, merge, inputs))
        parts = weight.reshape(groups // merge, merge, outputs // groups, height, width, inputs)
        for i in range(merge):
            dense[:, i, :, :, :, i] = parts[:, i]
        weight = dense.reshape(outputs, height, width, merge * inputs).astype(weight.dtype)
        groups //= merge
    group = group or group_of(weight.dtype.name)
    depth = round_up(weight.shape[3], group)
    padded = np.zeros((round_up(outputs, lanes), height, width, depth), weight.dtype)
    padded[:outputs, ..., : weight.shape[3]] = weight
    packed = padded.reshape(-1, lanes, height, width, depth // group, group)
    packed = packed.transpose(0, 2, 3, 4, 1, 5)
    return np.ascontiguousarray(packed if group > 1 else packed[..., 0]), groups


def dense(
    shape: Sequence[int], packed: Array, columns: int, dtype: str, out_dtype: str = ""
) -> PrimFunc:
    """`out[..., n] = sum_k x[..., k] * w[n, k]` for x of `shape` and weights `pack_matrix` made.

    The result has the type in which products are added up, or `out_dtype`.
    """
    blocks, lanes = packed.shape[0], packed.shape[2]
    rows, depth = prod(shape[:-1]), shape[-1]
    x = tensor(shape, "x", dtype)
    w = tensor(packed.shape, "weight", packed.dtype.name)
    group = _group(packed)
    whole = whole_groups(x, group)
    k = reduced(int(whole.shape[-1]), "k")
    product = computed(
        (rows, blocks * lanes),
        lambda m, n: te.sum(
            widened(whole[*unflatten(m, shape[:-1]), k], w)
            * widened(w[packed_index((n // lanes,), k, n % lanes, group)], w),
            axis=k,
        ),
        name="product",
        attrs=product_of("dense", 2 * rows * columns * depth),
    )
    out = computed(
        (*shape[:-1], columns),
        lambda *index: stored(product[flatten(index[:-1], shape[:-1]), index[-1]], out_dtype),
        name="output",
    )
    return finished([x, w, out])


def conv2d(  # noqa: PLR0913, PLR0917 - shape, weights, attributes, and both types
    shape: Sequence[int],
    packed: Array,
    outputs: int,
    conv: Conv2d,
    dtype: str,
    out_dtype: str = "",
) -> PrimFunc:
    """2-D convolution of x `[N, H, W, C]` with weights that `pack_filter` made; see `dense`."""
    blocks, kernel_h, kernel_w, _, lanes = packed.shape[:5]
    batch, height, width, _ = shape
    out_h, out_w = conv.output_size((height, width), (kernel_h, kernel_w))
    per_group = outputs // conv.groups
    flops = 2 * batch * out_h * out_w * outputs * kernel_h * kernel_w * conv.inputs
    x = tensor(shape, "x", dtype)
    w = tensor(packed.shape, "weight", packed.dtype.name)
    group = _group(packed)
    depth = packed.shape[3] * group
    channels = shape[-1] // conv.groups, depth
    padded = once_widened(pad2d(x, conv.padding, channels, conv.fill), group)
    kh = reduced(kernel_h, "kh")
    kw = reduced(kernel_w, "kw")
    k = reduced(depth, "k")
    (stride_h, stride_w), (dilate_h, dilate_w) = conv.strides, conv.dilation

    def channel(o: Any) -> Any:
        # The rounded-up outputs behind the last group read the last group's inputs.
        last = conv.groups - 1
        part = tirx.min(o // per_group, last) if blocks * lanes > outputs else o // per_group
        return k if conv.groups == 1 else part * depth + k

    product = computed(
        (batch, out_h, out_w, blocks * lanes),
        lambda n, h, v, o: te.sum(
            widened(
                padded[n, h * stride_h + kh * dilate_h, v * stride_w + kw * dilate_w, channel(o)], w
            )
            * widened(w[packed_index((o // lanes, kh, kw), k, o % lanes, group)], w),
            axis=[kh, kw, k],
        ),
        name="product",
        attrs=product_of("conv2d", flops),
    )
    out = computed(
        (batch, out_h, out_w, outputs),
        lambda *index: stored(product[index], out_dtype),
        name="output",
    )
    return finished([x, w, out])


def depthwise_conv2d(
    shape: Sequence[int],
    weight_shape: Sequence[int],
    conv: Conv2d,
    dtype: str,
    out_dtype: str = "",
) -> PrimFunc:
    """Depthwise convolution of x `[N, H, W, C]`, weights `[KH, KW, O]`, O a multiple of C."""
    kernel_h, kernel_w, outputs = weight_shape
    batch, height, width, channels = shape
    out_h, out_w = conv.output_size((height, width), (kernel_h, kernel_w))
    x = tensor(shape, "x", dtype)
    w = tensor(weight_shape, "weight", "int8" if dtype == "uint8" else dtype)
    padded = pad2d(x, conv.padding, fill=conv.fill)
    kh = reduced(kernel_h, "kh")
    kw = reduced(kernel_w, "kw")
    (stride_h, stride_w), (dilate_h, dilate_w) = conv.strides, conv.dilation
    multiplier = outputs // channels
    flops = 2 * batch * out_h * out_w * outputs * kernel_h * kernel_w
    product = computed(
        (batch, out_h, out_w, outputs),
        lambda n, h, v, o: te.sum(
            widened(
                padded[
                    n, h * stride_h + kh * dilate_h, v * stride_w + kw * dilate_w, o // multiplier
                ],
                w,
            )
            * widened(w[kh, kw, o], w),
            axis=[kh, kw],
        ),
        name="product",
        attrs=product_of("depthwise-conv2d", flops),
    )
    out = computed(
        (batch, out_h, out_w, outputs),
        lambda *index: stored(product[index], out_dtype),
        name="output",
    )
    return finished([x, w, out])


def widened(value: Any, weight: Any) -> Any:
    """An operand in the type in which products with `weight` are added up."""
    return value.astype(_ACCUMULATORS.get(str(weight.dtype), str(weight.dtype)))


def stored(value: Any, dtype: str) -> Any:
    """What was added up as the kernel's result has it."""
    return value.astype(dtype) if dtype else value


def packed_index(block: tuple[Any, ...], k: Any, lane: Any, group: int) -> tuple[Any, ...]:
    """Where an operand that is packed by `group` holds element k of a lane."""
    return (*block, k, lane) if group == 1 else (*block, k // group, lane, k % group)


def whole_groups(x: Any, group: int) -> Any:
    """X with zeros behind its last axis up to a whole group, as packed weights have them.

    It comes out as wide as `once_widened` makes it.
    """
    *lead, depth = (int(extent) for extent in x.shape)
    if depth % group == 0:
        return once_widened(x, group)

    def element(*index: Any) -> Any:
        return tirx.if_then_else(index[-1] < depth, x[index], tirx.const(0, x.dtype))

    return once_widened(computed((*lead, round_up(depth, group)), element, name="pad"), group)


def once_widened(x: Any, group: int) -> Any:
    """X in the type of which a group fills a lane: each element is converted once."""
    bits = _LANE // group
    if _bits(str(x.dtype)) == bits:
        return x
    dtype = f"float{bits}" if str(x.dtype).startswith("float") else f"int{bits}"
    return computed([int(extent) for extent in x.shape], lambda *i: x[i].astype(dtype), name=WIDEN)


def _group(packed: Array) -> int:
    """Successive k of a lane in packed weights."""
    return 1 if group_of(packed.dtype.name) == 1 else packed.shape[-1]


def _bits(dtype: str) -> int:
    return 8 * np.dtype(dtype).itemsize
