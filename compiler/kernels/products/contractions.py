"""Loop nests of convolutions and matrix products, in the data layout that the CPU rules want.

Every function here returns a TIR function of up to four blocks:

* `pad` or `pack`: brings an operand into the layout that the product reads,
* `product`: the multiply-add; its last axis counts output channels, rounded up to whole vectors,
* `output`: the product without the rounding, in the shape of the operator's result.

Weights come packed (`packing`), activations keep channels last.
Register tiles, loop order and threads are the schedule rules' business and do not show here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tvm import te

from hybridc.compiler.interfaces import PrimFunc
from hybridc.compiler.kernels.products.packing import (
    group_in,
    once_widened,
    packed_index,
    whole_groups,
)
from hybridc.compiler.kernels.tensor_expressions import (
    RowForm,
    computed,
    counted,
    extents,
    finished,
    pad2d,
    product_of,
    reduced,
    tensor,
)
from hybridc.compiler.model import Array


@dataclass(frozen=True)
class Conv2d:
    """A convolution's attributes; `padding` is top, left, bottom, right, and filled with `fill`.

    `inputs` are the input channels that one output is asked to read.  Groups that were merged
    read more, but `groups` counts them as they are read.  `made` are the height and width of an
    output whose size is open, of which the kernel is `given` those that its operands do not tell.
    """

    strides: tuple[int, int]
    padding: tuple[int, int, int, int]
    dilation: tuple[int, int]
    groups: int
    inputs: int
    fill: int = 0
    made: tuple[Any, Any] | None = None
    given: tuple[Any, ...] = ()

    def output_size(self, size: tuple[int, int], kernel: tuple[int, int]) -> tuple[int, int]:
        """Height and width of the output for an input of `size`."""
        if self.made is not None:
            return self.made
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


# Products are added up in these types; what is not named here, in its own.
_ACCUMULATORS = {"bfloat16": "float32", "float16": "float32", "int8": "int32", "int16": "int32"}


def dense(  # noqa: PLR0913, PLR0917 - shapes, weights, both types, and how x is read
    shape: Sequence[int],
    packed: Array,
    columns: int,
    dtype: str,
    out_dtype: str = "",
    wide: bool = False,
) -> PrimFunc:
    """`out[..., n] = sum_k x[..., k] * w[n, k]` for x of `shape` and weights `pack_matrix` made.

    The result has the type in which products are added up, or `out_dtype`.  The rows of all axes
    of fixed size count as one.  Activations that meet pairs are `wide` if they become float32 once
    and not at each use.
    """
    blocks, lanes = packed.shape[0], packed.shape[2]
    form = RowForm(tuple(shape[:-1]))
    x = tensor(shape, "x", dtype)
    w = tensor(packed.shape, "weight", packed.dtype.name)
    group = group_in(packed)
    whole = whole_groups(x, group, wide)
    k = reduced(int(whole.shape[-1]), "k")

    def element(row: Sequence[Any], n: Any) -> Any:
        weight = widened(w[packed_index((n // lanes,), k, n % lanes, group)], w)
        return te.sum(widened(whole[*form.place(row), k], w) * weight, axis=k)

    out = dense_output(form, shape, (columns, blocks * lanes), element, out_dtype)
    return finished([x, w, out])


def dense_output(
    form: RowForm,
    shape: Sequence[int],
    columns: tuple[int, int],
    element: Callable[[Sequence[Any], Any], Any],
    out_dtype: str,
) -> Any:
    """What a matrix product stores for x of `shape`: of each row, its `element`s.

    `columns` are those of the output, and those that are computed, of whole panels.
    """
    wanted, made = columns
    product = computed(
        (*form.axes, made),
        (lambda m, n: element([m], n))
        if len(form.axes) == 1
        else lambda *i: element(i[:-1], i[-1]),
        name="product",
        attrs=product_of("dense", 2 * counted(*shape) * wanted),
    )
    return computed(
        (*shape[:-1], wanted),
        lambda *index: stored(product[*form.row(index[:-1]), index[-1]], out_dtype),
        name="output",
    )


def conv2d(  # noqa: PLR0913, PLR0917 - shape, weights, attributes, and both types
    shape: Sequence[int],
    packed: Array,
    outputs: int,
    conv: Conv2d,
    dtype: str,
    out_dtype: str = "",
    wide: bool = False,
) -> PrimFunc:
    """2-D convolution of x `[N, H, W, C]` with weights that `pack_filter` made; see `dense`."""
    blocks, kernel_h, kernel_w, _, lanes = packed.shape[:5]
    batch, height, width, _ = shape
    out_h, out_w = conv.output_size((height, width), (kernel_h, kernel_w))
    flops = 2 * counted(batch, out_h, out_w) * outputs * kernel_h * kernel_w * conv.inputs
    x = tensor(shape, "x", dtype)
    w = tensor(packed.shape, "weight", packed.dtype.name)
    group = group_in(packed)
    depth = packed.shape[3] * group
    channels = shape[-1] // conv.groups, depth
    padded = once_widened(pad2d(x, conv.padding, channels, conv.fill), 1 if wide else group)
    kh = reduced(kernel_h, "kh")
    kw = reduced(kernel_w, "kw")
    k = reduced(depth, "k")
    (stride_h, stride_w), (dilate_h, dilate_w) = conv.strides, conv.dilation

    def channel(o: Any) -> Any:
        return k if conv.groups == 1 else o // (blocks * lanes // conv.groups) * depth + k

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
    return finished([x, w, *conv.given, _conv2d_output(product, outputs, conv.groups, out_dtype)])


def _conv2d_output(product: Any, outputs: int, groups: int, out_dtype: str) -> Any:
    """What a convolution stores: of each group, its outputs without what rounds them up."""
    *image, columns = extents(product)
    each, made = outputs // groups, columns // groups
    whole = groups == 1 or made == each

    def element(*index: Any) -> Any:
        *pixel, o = index
        column = o if whole else o // each * made + o % each
        return stored(product[*pixel, column], out_dtype)

    return computed((*image, outputs), element, name="output")


def depthwise_conv2d(  # noqa: PLR0913, PLR0917 - shapes, attributes, and three types
    shape: Sequence[int],
    weight_shape: Sequence[int],
    conv: Conv2d,
    dtype: str,
    out_dtype: str = "",
    weight_dtype: str = "",
) -> PrimFunc:
    """Depthwise convolution of x `[N, H, W, C]`, weights `[KH, KW, O]`, O a multiple of C.

    Weights have the type of x, or int8 where that is uint8, if no other is given.
    """
    kernel_h, kernel_w, outputs = weight_shape
    batch, height, width, channels = shape
    out_h, out_w = conv.output_size((height, width), (kernel_h, kernel_w))
    x = tensor(shape, "x", dtype)
    held = weight_dtype or ("int8" if dtype == "uint8" else dtype)
    w = tensor(weight_shape, "weight", held)
    padded = pad2d(x, conv.padding, fill=conv.fill)
    kh = reduced(kernel_h, "kh")
    kw = reduced(kernel_w, "kw")
    (stride_h, stride_w), (dilate_h, dilate_w) = conv.strides, conv.dilation
    multiplier = outputs // channels
    flops = 2 * counted(batch, out_h, out_w) * outputs * kernel_h * kernel_w
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
    return finished([x, w, *conv.given, out])


def widened(value: Any, weight: Any) -> Any:
    """An operand in the type in which products with `weight` are added up."""
    return value.astype(_ACCUMULATORS.get(str(weight.dtype), str(weight.dtype)))


def stored(value: Any, dtype: str) -> Any:
    """What was added up as the kernel's result has it."""
    return value.astype(dtype) if dtype else value
