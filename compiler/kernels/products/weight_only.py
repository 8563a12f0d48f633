"""The loop nest of products with weights of 8 or 4 bits, dequantised within the kernel."""

from collections.abc import Sequence
from math import prod
from typing import Any

from tvm import te, tirx

from hybridc.compiler.interfaces import PrimFunc
from hybridc.compiler.kernels.tensor_expressions import (
    RowForm,
    computed,
    counted,
    extents,
    finished,
    product_of,
    reduced,
    tensor,
)
from hybridc.compiler.model import Array
from hybridc.compiler.quantization.group_quantization import per_element
from hybridc.compiler.target import CUDA, Target

# What marks the product, and the name of the block that dequantises.
KIND = "weight-only-dense"
UNPACK = "unpack"
_FULL = "float32"
_WORD, _BYTE = 32, 8
# Turns the sign bits of all but the last integer of a word: two's complement becomes 8 more.
SIGNS = 0x08888888
# Vectors of a panel: as many as a register tile has.
_WIDE, _NARROW = 4, 2
# Rows up to which integers are multiplied group by group (`grouped_weights`).  Beyond, a weight
# serves so many multiply-adds that unpacking it costs little, and sums of two kinds take more
# registers than there are (AVX2).
MOST_GROUPED = 3
# Cycles to unpack a vector of weights: with so few rows, with those of one register tile, beside
# which multiply-adds take longer, and with more, for which it is stored and read again.  With
# 4096x4096 weights from memory a packed product took 0.67 of the time of float32 with 4 rows, 0.88
# with 8, 1.28 with 14, 1.16 with 16 and 1.14 with 32; BERT-base with 128 rows, 1.05 (Zen 4, 2
# threads).
_UNPACK_FEW, _UNPACK, _UNPACK_MANY = 0.6, 1.0, 6.0
_BESIDE = 1.5
# Of arithmetic and memory, the share of the shorter that is not hidden behind the longer.
_EXPOSED = 0.25
_FLOAT = 4  # bytes
# Of a GPU: a thread reads the words of four columns, 16 bytes, and multiplies them by what it read
# of x once.
GPU_WIDTH = 4


def dense(  # noqa: PLR0913 - the product, and in which form
    shape: Sequence[int],
    integers: Array,
    scales: Array,
    columns: int,
    bits: int,
    *,
    zeros: Array | None = None,
    padded: bool = True,
    signed: bool = True,
    dtype: str = _FULL,
) -> PrimFunc:
    """`out[..., n] = sum_k x[..., k] * q[k, n] * scale[k // size, n]`, summed up in float32.

    `integers` of `bits` and `scales` are what `group_quantization.packed` made for x of `shape`;
    where its groups are longer than the last axis of x, zeros are put behind that.  The blocks are
    those of `contractions.dense`, and one between weights and product that makes `dtype` of them,
    which x is of too.  From integers `zeros`, of the shape of the scales, are taken off.  Sizes of
    x but the last may be open.  The product has the columns of whole panels if `padded`.  Integers
    that are not `signed` are those that `grouped_weights` stores.
    """
    panels, _, width = scales.shape
    form, inputs = RowForm(tuple(shape[:-1])), shape[-1]
    share = per_element(bits)
    depth = integers.shape[1] * share
    x = tensor(shape, "x", dtype)
    q, s, z = stored_weights(integers, scales, zeros)
    whole = extended(x, depth)
    unpacked = _unpacked((q, s, z), depth, bits, dtype, SIGNS if not signed and bits < _BYTE else 0)
    k = reduced(depth, "k")

    def element(row: Sequence[Any], n: Any) -> Any:
        factors = whole[*form.place(row), k], unpacked[n // width, k, n % width]
        return te.sum(factors[0].astype(_FULL) * factors[1].astype(_FULL), axis=k)

    product = computed(
        (*form.axes, panels * width if padded else columns),
        lambda *i: element(i[:-1], i[-1]),
        name="product",
        attrs=product_of(KIND, 2 * counted(*shape[:-1]) * columns * inputs),
    )
    return of_rows(product, form, (*shape[:-1], columns), [x, q, s, z])


def stored_weights(
    integers: Array, scales: Array, zeros: Array | None
) -> tuple[Any, Any, Any | None]:
    """The parameters for integers, scales and, where there are some, zero points."""
    q = tensor(integers.shape, "weight", integers.dtype.name)
    s = tensor(scales.shape, "scale", scales.dtype.name)
    return q, s, None if zeros is None else tensor(zeros.shape, "zeros", zeros.dtype.name)


def of_rows(product: Any, form: RowForm, shape: Sequence[Any], given: Sequence[Any]) -> PrimFunc:
    """The kernel of a product `[rows, columns or more]` that returns its first columns by `shape`.

    Parameters that are None are left out.
    """
    out = computed(shape, lambda *index: product[*form.row(index[:-1]), index[-1]], name="output")
    return finished([*(x for x in given if x is not None), out])


def _unpacked(packed: tuple[Any, Any, Any], depth: int, bits: int, dtype: str, turned: int) -> Any:
    """The weights `[panels, depth, width]`: products of integers and scales in `dtype`, rounded.

    The bits that are `turned` are the other way in each word.
    """
    q, s, z = packed
    panels, groups, width = extents(s)
    share = per_element(bits)
    size = depth // groups

    def weight(p: Any, k: Any, lane: Any) -> Any:
        integer = q[p, k // share, lane]
        integer = integer ^ tirx.const(turned, "int32") if turned else integer
        if share > 1:  # up to the sign's place, and down again with the sign
            up = (_WORD - bits - k % share * bits).astype("int32")
            integer = (integer << up) >> tirx.const(_WORD - bits, "int32")
        scale = s[p, k // size, lane].astype(_FULL).astype(dtype).astype(_FULL)
        wide = integer.astype(_FULL)
        wide = wide if z is None else wide - z[p, k // size, lane].astype(_FULL)
        return (wide * scale).astype(dtype)

    return computed((panels, depth, width), weight, name=UNPACK)


def pays(rows: int, matrix: Sequence[int], bits: int, near: bool, target: Target) -> bool:
    """Whether a product with packed weights `[K, N]` takes less time than one with float32.

    Cycles are those of a vector of weights: its multiply-adds, what unpacks it, and its bytes from
    where they come from.  Weights are `near` that stay in the last cache from run to run.
    """
    machine, wide = target.machine, target.lanes() * _FLOAT
    fed = machine.l3_bytes_per_cycle if near else machine.dram_bytes_per_cycle
    if near and prod(matrix) * _FLOAT <= target.l2 * target.threads:
        fed = machine.l2_bytes_per_cycle
    products = rows / machine.fma_per_cycle
    tile = (target.vector_registers - _NARROW - 1) // _NARROW
    if rows <= MOST_GROUPED:
        packed = products + _UNPACK_FEW
    else:
        packed = products + _UNPACK_MANY if rows > tile else _BESIDE * products + _UNPACK
    narrow = _overlapped(packed, wide * bits / (_FLOAT * _BYTE) / fed)
    return narrow < _overlapped(products, wide / fed)


def _overlapped(first: float, second: float) -> float:
    return max(first, second) + _EXPOSED * min(first, second)


def bits_of(integers: Array) -> int:
    """The bits of the integers in packed weights."""
    return _BYTE if integers.dtype.itemsize == 1 else _BYTE // 2


def panel_width(rows: int, columns: int, target: Target) -> int:
    """Output channels of a panel of packed weights, which lie side by side for each input.

    With few rows, a register tile of four vectors hides the latency of its multiply-adds, and a
    panel is one stream from memory; with more rows, their accumulators need the registers.
    """
    if target.kind == CUDA:
        return GPU_WIDTH
    lanes = target.lanes()
    wide = rows * _WIDE + _WIDE + 1 <= target.vector_registers
    return lanes * min(_WIDE if wide else _NARROW, -(-columns // lanes))


def extended(x: Any, depth: int) -> Any:
    """X with zeros behind its last axis, up to `depth`."""
    *lead, inputs = extents(x)
    if inputs == depth:
        return x

    def element(*index: Any) -> Any:
        return tirx.if_then_else(index[-1] < inputs, x[index], tirx.const(0, x.dtype))

    return computed((*lead, depth), element, name="pad")
