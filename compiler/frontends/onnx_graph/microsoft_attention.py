"""ONNX Runtime's operators of attention, written with ONNX's."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from hybridc.compiler.frontends.onnx_graph.formulas import Formulas

_FILTER = -10000.0  # what is added to scores of masked keys unless an attribute says otherwise


@dataclass(frozen=True)
class Heads:
    """Queries, keys and values as `[batch, heads, length, width]`, and what is added to scores."""

    query: str
    key: str
    value: str
    biases: tuple[str, ...] = ()


def attend(f: Formulas, heads: Heads, width: int) -> str:
    """The values that queries of this width choose, as `[batch, length, heads * width]`."""
    scale = f.attribute("scale", 0.0) or 1 / np.sqrt(width)
    keys = f("Transpose", heads.key, perm=[0, 1, 3, 2])
    scores = f("Mul", f("MatMul", heads.query, keys), scale)
    for bias in heads.biases:
        scores = f("Add", scores, bias)
    found = f("MatMul", f("Softmax", scores, axis=-1), heads.value)
    return f.reshaped(f("Transpose", found, perm=[0, 2, 1, 3]), 0, 0, -1)


def by_heads(f: Formulas, x: str, heads: int, width: int) -> str:
    """`[batch, length, heads * width]` as `[batch, heads, length, width]`."""
    return f("Transpose", f.reshaped(x, 0, 0, heads, width), perm=[0, 2, 1, 3])


def causal(f: Formulas, query: str, key: str) -> str:
    """What hides from each query the keys behind it, where the last of each are of one place."""
    length, total = f.size(query, 2), f.size(key, 2)
    rows = f("Add", f.counted(length), f("Sub", total, length))
    hidden = f("Greater", f.expanded(f.counted(total), 0), f.expanded(rows, 1))
    lowest = float(np.finfo(f.number_type).min)
    return f("Where", hidden, lowest, 0.0)


def masked(f: Formulas, mask: str, query: str, key: str) -> str:
    """What hides masked keys: by marks of `[batch, keys]`, or of queries too, or by lengths."""
    rank = len(f.dims(mask))
    f.refuse(rank not in (1, 2, 3))
    if rank == 1:
        # Where it is open it would be computed, and have no name, if it were not one of each batch.
        many = f.dims(mask)[0]
        f.refuse(many == "" or (many != f.dims(f.input(0))[0] and isinstance(many, int)))
        ends = f.expanded(f.cast(mask, "int64"), 1)
        shown = f("Less", f.expanded(f.counted(f.size(key, 2)), 0), ends)
    else:
        zero = f.constant(np.array(0, f.dtype(mask) or "int32"))
        shown = f("Greater", mask, zero)
    shown = f.expanded(shown, 1) if rank == 3 else f.expanded(shown, 1, 2)
    return f("Where", shown, 0.0, f.attribute("mask_filter_value", _FILTER))


def joined(f: Formulas, past: str, new: str) -> str:
    """Keys or values of earlier calls, and those of this one."""
    return f("Concat", past, new, axis=2)


def core(f: Formulas, projected: list[str], sizes: list[int], places: Mapping[str, int]) -> None:
    """Attention of one projected sequence; `places` are those of its optional inputs."""
    count = f.attribute("num_heads", 0)
    widths = [size // count for size in sizes]
    query, key, value = (by_heads(f, x, count, w) for x, w in zip(projected, widths, strict=True))
    mask, past, bias = (f.input(places.get(name, 99)) for name in ("mask", "past", "bias"))
    if past:
        earlier = [f("Gather", past, f.constant(np.array(i, np.int64)), axis=0) for i in (0, 1)]
        key, value = joined(f, earlier[0], key), joined(f, earlier[1], value)
    if f.wants(1):
        f.named(f("Concat", f.expanded(key, 0), f.expanded(value, 0), axis=0), 1)
    biases = [masked(f, mask, query, key)] if mask else []
    biases += [causal(f, query, key)] if f.attribute("unidirectional", 0) else []
    biases += [bias] if bias else []
    f.named(attend(f, Heads(query, key, value, tuple(biases)), widths[0]))


def refuse_unknown(f: Formulas) -> None:
    """Raise UnwrittenError for options that are not written out."""
    f.refuse(f.attribute("do_rotary", 0), f.attribute("past_present_share_buffer", 0))


def _attention(f: Formulas) -> None:
    """Projections of one sequence, and attention in it."""
    refuse_unknown(f)
    f.refuse(f.wants(2), f.input(6))
    whole = f.fixed(f.input(1), 1)
    sizes = list(f.attribute("qkv_hidden_sizes", [whole // 3] * 3))
    x = f("MatMul", f.input(0), f.input(1))
    x = f("Add", x, f.input(2)) if f.input(2) else x
    core(f, f.split(x, sizes), sizes, {"mask": 3, "past": 4, "bias": 5})


def _multi_head(f: Formulas) -> None:
    """Attention of queries, keys and values that are projected already."""
    query, key, value = (f.input(i) for i in range(3))
    f.refuse(not key, not value, f.input(8), f.input(9), f.wants(3))
    f.refuse(len(f.dims(query)) != 3, len(f.dims(key)) != len(f.dims(value)))
    count, total = f.attribute("num_heads", 0), f.fixed(query, 2)
    width, apart = total // count, len(f.dims(key)) == 4
    f.refuse(not apart and len(f.dims(key)) != 3)
    out = f.fixed(value, 3) if apart else f.fixed(value, 2) // count
    operands = [query, key, value]
    if f.input(3):
        parts = f.split(f.input(3), [total, total, out * count], axis=0)
        chosen = operands[:1] if apart else operands
        operands[: len(chosen)] = [f("Add", x, b) for x, b in zip(chosen, parts, strict=False)]
    q = by_heads(f, operands[0], count, width)
    k = key if apart else by_heads(f, operands[1], count, width)
    v = value if apart else by_heads(f, operands[2], count, out)
    if f.input(6):
        k, v = joined(f, f.input(6), k), joined(f, f.input(7), v)
    f.named(k, 1)
    f.named(v, 2)
    biases = [masked(f, f.input(4), q, k)] if f.input(4) else []
    biases += [causal(f, q, k)] if f.attribute("unidirectional", 0) else []
    biases += [f.input(5)] if f.input(5) else []
    f.named(attend(f, Heads(q, k, v, tuple(biases)), width))


FORMULAS: Mapping[str, Callable[[Formulas], None]] = MappingProxyType(
    {"Attention": _attention, "MultiHeadAttention": _multi_head}
)
