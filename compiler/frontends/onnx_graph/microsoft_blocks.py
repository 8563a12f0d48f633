"""ONNX Runtime's operators on weights of few bits, each block of which has a scale.

Products become those with ONNX's DequantizeLinear in blocks, which `block-weights` recognises.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from hybridc.compiler.frontends.onnx_graph.formulas import Formulas
from hybridc.compiler.model import Array

# Ours: what a product may round to 8 bits in blocks.
ROUNDABLE = "HybridcRoundable"
_BYTE = 8
_BITS = (2, 4, 8)
_BYTES = 4  # the level of accuracy at which ONNX Runtime rounds activations to bytes


def unpacked(packed: Array, bits: int, count: int) -> Array:
    """Unsigned integers along the last axis of bytes, the first in the lowest bits."""
    share = _BYTE // bits
    places = (packed[..., np.newaxis] >> np.arange(0, _BYTE, bits, dtype=np.uint8)) & (2**bits - 1)
    whole = places if share > 1 else packed[..., np.newaxis]
    made: Array = whole.reshape(*packed.shape[:-1], -1)[..., :count]
    return made


def signed(integers: Array, bits: int) -> Array:
    """Unsigned integers less half of their range, as int8."""
    made: Array = (integers.astype(np.int16) - 2 ** (bits - 1)).astype(np.int8)
    return made


def dequantized(f: Formulas, integers: Array, scales: Array, zeros: Array | None, size: int) -> str:
    """`[K, N]` of int8 less its zeros times the scale of each block of `size` inputs."""
    import onnx

    inputs = [f.constant(np.ascontiguousarray(x)) for x in (integers, scales)]
    inputs += [] if zeros is None else [f.constant(zeros)]
    name = f"{f.prefix}/{len(f.nodes)}"
    made = onnx.helper.make_node("DequantizeLinear", inputs, [name], axis=0, block_size=size)
    f.nodes.append(made)
    return name


def _product(f: Formulas) -> None:
    """MatMulNBits: a product with `[N, K]` of few bits, in blocks along K."""
    depth, columns = f.attribute("K", 0), f.attribute("N", 0)
    bits, size = f.attribute("bits", 4), f.attribute("block_size", 0)
    f.refuse(bits not in _BITS, f.attribute("weight_prepacked", 0), size < 1)
    blocks = -(-depth // size)
    packed = f.value(f.input(1)).reshape(columns, blocks * size * bits // _BYTE)
    integers = signed(unpacked(packed, bits, depth), bits).T
    scales = f.value(f.input(2)).astype(np.float32).reshape(columns, blocks).T
    x = f.widened(f.input(0))
    if f.input(4):
        places = f.value(f.input(4))[:depth]
        # With zero points ONNX Runtime takes those of other blocks.
        f.refuse(f.input(3), (np.sort(places) != np.arange(depth) // size).any())
        order = np.argsort(places, kind="stable")
        integers = integers[order]
        x = f("Gather", x, f.ints(*order), axis=-1)
    zeros, share = _zeros(f, columns, blocks, bits)
    made = dequantized(f, integers, scales, zeros, size)
    if share is not None:
        spread = np.repeat(np.ascontiguousarray(share * scales), size, axis=0)[:depth]
        made = f("Sub", made, f.constant(spread))
    if f.attribute("accuracy_level", 0) == _BYTES:
        x = f(ROUNDABLE, x)
    y = f("MatMul", x, made)
    y = f("Add", y, f.widened(f.input(5))) if f.input(5) else y
    f.named(f.narrowed(y))


def _zeros(f: Formulas, columns: int, blocks: int, bits: int) -> tuple[Array | None, Array | None]:
    """Zero points `[blocks, N]` as integers, where there are any but 0; else as floats."""
    if not f.input(3):
        return None, None
    given, half = f.value(f.input(3)), 2 ** (bits - 1)
    if given.dtype != np.uint8:
        return None, given.astype(np.float32).reshape(columns, blocks).T - half
    whole = unpacked(given.reshape(columns, -1), bits, blocks)
    zeros = np.ascontiguousarray(signed(whole, bits).T)
    return (zeros if zeros.any() else None), None


def _gather(f: Formulas) -> None:
    """GatherBlockQuantized: rows of a table of few bits, in blocks along the last axis."""
    data, scales, zeros = f.value(f.input(0)), f.value(f.input(2)), f.input(3)
    bits, size = f.attribute("bits", 4), f.attribute("block_size", 128)
    rank = data.ndim
    f.refuse(
        f.attribute("gather_axis", 0) % rank, data.dtype.name not in ("uint8", "int4", "uint4")
    )
    f.refuse(f.attribute("quantize_axis", 1) % rank != rank - 1)
    packs = data.dtype == np.uint8
    width = data.shape[-1] * (_BYTE // bits) if packs else data.shape[-1]
    f.refuse(rank < 2, packs and bits not in _BITS)
    places = _inside(f, f.input(1), len(data))
    if packs:
        # Bytes stay packed, and only those of rows that are asked for are taken apart.
        rows = f.cast(f("Gather", f.input(0), places), "int32")
        parts = [
            f("Mod", f("Div", rows, f.constant(np.int32(2**at))), f.constant(np.int32(2**bits)))
            for at in range(0, _BYTE, bits)
        ]
        whole = f("Concat", *(f.expanded(part, -1) for part in parts), axis=-1)
    else:
        whole = f.cast(f("Gather", f.constant(data.astype(np.int8)), places), "int32")
    lead = [0] * (len(f.dims(f.input(1))) + rank - 2)
    whole = f.reshaped(whole, *lead, width // size, size)
    wide = f.cast(whole, "float32")
    default = float(2 ** (bits - 1)) if packs else 0.0
    points = _points(f.value(zeros), packs, bits, width // size) if zeros else None
    taken = default if points is None else f("Gather", f.constant(points), places)
    point = f.expanded(taken, -1) if isinstance(taken, str) else taken
    factor = f.expanded(f("Gather", f.constant(scales.astype(np.float32)), places), -1)
    narrow, f.number_type = f.number_type, "float32"
    made = f.reshaped(f("Mul", f("Sub", wide, point), factor), *lead, width)
    f.number_type = narrow
    f.named(f.narrowed(made))


def _inside(f: Formulas, places: str, count: int) -> str:
    """Places in a table, negative ones counted from its end."""
    wide = f.cast(places, "int64")
    zero, many = (f.constant(np.array(n, np.int64)) for n in (0, count))
    return f("Where", f("Less", wide, zero), f("Add", wide, many), wide)


def _points(zeros: Array, packs: bool, bits: int, blocks: int) -> Array:
    whole = unpacked(zeros, bits, blocks) if packs else zeros
    return whole.astype(np.float32)


def _four_bits(f: Formulas) -> None:
    """MatMulBnb4: a product with `[N, K]` whose elements number the entries of a table."""
    depth, columns, size = (f.attribute(name, 0) for name in ("K", "N", "block_size"))
    f.refuse(f.attribute("quant_type", 0) not in (0, 1), f.attribute("training_mode", 0))
    packed = f.value(f.input(1)).reshape(-1)
    # The first of two in the higher bits.
    codes = np.stack([packed >> 4, packed & 15], axis=-1).reshape(-1)[: depth * columns]
    levels = (_FP4, _NF4)[f.attribute("quant_type", 0)][codes]
    largest = f.value(f.input(2)).astype(np.float32).reshape(-1)
    weights = levels * np.repeat(largest, size)[: depth * columns]
    matrix = weights.reshape(columns, depth).astype(np.float32)
    matrix = matrix.T if f.attribute("transB", 1) else matrix
    y = f("MatMul", f.widened(f.input(0)), f.constant(np.ascontiguousarray(matrix)))
    f.named(f.narrowed(y))


# The tables of bitsandbytes: QLoRA's normal floats (arXiv:2305.14314, appendix E), and floats of a
# sign, two bits of exponent and one of mantissa.
_NF4 = np.array(
    [
        *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
        *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
        *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
        *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
    ],
    np.float32,
)
_SIZES = (0.0, 5.208333333e-03, 0.66666667, 1.0, 0.33333333, 0.5, 0.16666667, 0.25)
_FP4 = np.array([*_SIZES, *(-size for size in _SIZES)], np.float32)

FORMULAS: Mapping[str, Callable[[Formulas], None]] = MappingProxyType(
    {"GatherBlockQuantized": _gather, "MatMulBnb4": _four_bits, "MatMulNBits": _product}
)
