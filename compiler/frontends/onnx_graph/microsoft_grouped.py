"""ONNX Runtime's attention of decoders, GroupQueryAttention, written with ONNX's operators.

Each head of keys and values serves several heads of queries, which stand one below the other as
rows of one product: so keys are read once, and never repeated in memory.

Of each sequence `seqlens_k + 1` keys count, and the last of them are those of this call.  They are
put behind the earlier ones, in a tensor that is longer by their number, or in one of the length of
what was given, where `total_sequence_length` says that they fit.  What is behind is zero.  Where it
is data, it is at most the length of what was given.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from hybridc.compiler.frontends.onnx_graph.formulas import Formulas
from hybridc.compiler.frontends.onnx_graph.microsoft_attention import by_heads
from hybridc.compiler.frontends.onnx_graph.microsoft_rotary import Turn, turned
from hybridc.compiler.frontends.onnx_graph.model_file import Proto

# Ours: keys or values of earlier tokens, those of now, and where in each sequence these begin; what
# is joined has room for all, or is `within` the earlier ones.
JOINED = "HybridcJoinedPast"
_PAST, _LENGTHS, _TOTAL, _COS, _SIN, _POSITIONS, _BIAS, _SINK = 3, 5, 6, 7, 8, 9, 10, 11
# Scales of caches of integers, and norms of heads, which ONNX Runtime refuses on CPUs.
_UNKNOWN = (12, 13, 14, 15)


@dataclass(frozen=True)
class _Call:
    """What one node is given: sizes, and where the new keys of each sequence begin `[batch]`."""

    heads: int
    groups: int
    width: int
    length: str
    begins: str


def _attention(f: Formulas) -> None:
    f.refuse(*(f.input(i) for i in _UNKNOWN), f.attribute("sliding_window_cache", 0), f.wants(3))
    f.refuse(*(f.attribute(f"{name}_quant_type", "NONE") != "NONE" for name in "kv"))
    query, key, value = _projected(f)
    heads, groups = f.attribute("num_heads", 0), f.attribute("kv_num_heads", 0)
    length = f.size(query, 2)
    lengths = f("Add", f.cast(f.reshaped(f.input(_LENGTHS), -1), "int64"), _whole(f, 1))
    begins = f("Max", f("Sub", lengths, length), _whole(f, 0))
    width = f.fixed(f.input(0), 2) // (heads if f.input(1) else heads + 2 * groups)
    call = _Call(heads, groups, width, length, begins)
    if f.attribute("do_rotary", 0):
        query, key = _turned(f, call, query), _turned(f, call, key)
    new = (key, value)
    key, value = (_present(f, call, i, x) for i, x in enumerate(new))
    f.named(f.narrowed(key), 1)
    f.named(f.narrowed(value), 2)
    if _shares(f) and not _is_told(f):
        end = f.cast(f.reshaped(f.input(_TOTAL), 1), "int64")
        key, value = (f("Slice", x, f.ints(0), end, f.ints(2)) for x in (key, value))
    made = _attend(f, call, query, (key, value))
    f.named(f.narrowed(_within(f, lengths, made) if _is_told(f) else made))


def _is_told(f: Formulas) -> bool:
    """Whether a call says how many places of a buffer count, which then is not cut to them.

    All of it is read, and what does not count is hidden.
    """
    return _shares(f) and not f.input(_BIAS) and not f.is_of_sizes(f.input(_TOTAL))


def _within(f: Formulas, lengths: str, made: str) -> str:
    """What was computed; NaN where more places should count than there are."""
    total = f.cast(f.reshaped(f.input(_TOTAL), 1), "int64")
    most = f.expanded(f("Max", lengths, total), 1, 2)
    beyond = f("Greater", most, _whole(f, int(f.fixed(f.input(_PAST), 2))))
    return f("Where", beyond, f.constant(np.array(np.nan, np.float32)), made)


def _projected(f: Formulas) -> list[str]:
    """Queries, keys and values in float32 as `[batch, heads, length, width]`."""
    heads, groups = f.attribute("num_heads", 0), f.attribute("kv_num_heads", 0)
    f.refuse(len(f.dims(f.input(0))) != 3, heads % groups)
    whole = f.fixed(f.input(0), 2)
    if f.input(1):
        width, parts = whole // heads, [f.widened(f.input(i)) for i in range(3)]
        f.refuse(not f.input(2), len(f.dims(f.input(1))) != 3)
        f.refuse(f.dims(f.input(1))[1] != f.dims(f.input(0))[1])
    else:
        width = whole // (heads + 2 * groups)
        sizes = [heads * width, groups * width, groups * width]
        parts = f.split(f.widened(f.input(0)), sizes)
    return [by_heads(f, x, n, width) for x, n in zip(parts, (heads, groups, groups), strict=True)]


def _whole(f: Formulas, *numbers: int) -> str:
    """One integer, or a list of several."""
    return f.constant(np.array(numbers[0] if len(numbers) == 1 else numbers, np.int64))


def _turned(f: Formulas, call: _Call, x: str) -> str:
    """Heads turned by the angles of their places."""
    places = f.input(_POSITIONS)
    if not places:
        places = f("Add", f.expanded(call.begins, 1), f.counted(call.length))
    half = f.fixed(f.input(_COS), 1)
    tables = (f.widened(f.input(i)) for i in (_COS, _SIN))
    cos, sin = (f.expanded(f("Gather", table, places), 1) for table in tables)
    apart = not f.attribute("rotary_interleaved", 0)
    narrow, f.number_type = f.number_type, "float32"
    made = turned(f, x, Turn(cos, sin, half, call.width, apart))
    f.number_type = narrow
    return made


def _has_past(f: Formulas) -> bool:
    return bool(f.input(_PAST)) and f.dims(f.input(_PAST))[2] != 0


def _shares(f: Formulas) -> bool:
    """Whether keys of this call take places within what was given of earlier ones."""
    if not _has_past(f):
        return False
    held, length = f.dims(f.input(_PAST))[2], f.dims(f.input(0))[1]
    if not isinstance(held, int):
        return False
    if f.input(_TOTAL) not in f.constants:
        return True
    total = int(f.value(f.input(_TOTAL)).reshape(-1)[0])
    f.refuse(total > held and isinstance(length, int) and total != held + length)
    return total <= held


def _present(f: Formulas, call: _Call, index: int, new: str) -> str:
    """Keys or values of earlier calls with those of this one where they belong."""
    if not _has_past(f):
        return new
    past = f.widened(f.input(_PAST + index))
    return f(JOINED, past, new, call.begins, within=int(_shares(f)))


def joined_kind(node: Proto, types: Mapping[str, Proto]) -> Proto:
    """The type of earlier tensors with those of now behind them."""
    made = type(types[node.input[0]])()
    made.CopyFrom(types[node.input[0]])
    if not any(item.name == "within" and item.i for item in node.attribute):
        held, new = made.tensor_type.shape.dim[2], types[node.input[1]].tensor_type.shape.dim
        known = len(new) == 4 and held.HasField("dim_value") and new[2].HasField("dim_value")
        total = held.dim_value + new[2].dim_value if known else 0
        held.Clear()
        if known:
            held.dim_value = total
    return made


def _attend(f: Formulas, call: _Call, query: str, known: tuple[str, str]) -> str:
    """What queries choose of values, as `[batch, length, heads * width]` in float32."""
    narrow, f.number_type = f.number_type, "float32"
    key, value = known
    rows = f.reshaped(query, 0, call.groups, -1, call.width)
    scale = f.attribute("scale", 0.0) or 1 / np.sqrt(call.width)
    keys = f("Transpose", key, perm=[0, 1, 3, 2])
    scores = f("Mul", f("MatMul", rows, keys), scale)
    if cap := f.attribute("softcap", 0.0):
        scores = f("Mul", f("Tanh", f("Div", scores, cap)), cap)
    # The place in its sequence of each row, of which there are as many as heads of a group.
    steps = f("Mod", f.counted(f.size(rows, 2)), call.length)
    if f.input(_BIAS):
        scores = f("Add", scores, _bias(f, call, f.cast(f.input(_BIAS), "float32"), steps))
    scores = f("Add", scores, _hidden(f, call, steps, key))
    chosen = f("MatMul", _shares_of(f, call, scores), value)
    by_head = f.reshaped(chosen, 0, call.heads, -1, call.width)
    made = f.reshaped(f("Transpose", by_head, perm=[0, 2, 1, 3]), 0, 0, -1)
    f.number_type = narrow
    return made


def _bias(f: Formulas, call: _Call, bias: str, steps: str) -> str:
    """A bias of each head, or of all, for the rows of its group."""
    own = f.dims(f.input(_BIAS))[1]
    f.refuse(own not in (1, call.heads))
    if own == 1:
        return f("Gather", bias, steps, axis=2)
    return f.reshaped(bias, 0, call.groups, -1, 0)


def _hidden(f: Formulas, call: _Call, steps: str, key: str) -> str:
    """What hides keys behind a query, or beyond its window: `[batch, 1, rows, keys]`."""
    total = f.size(key, 2)
    if _has_past(f) and f.input(_TOTAL) not in f.constants and not _is_told(f):
        total = f.cast(f.reshaped(f.input(_TOTAL), 1), "int64")
        total = f("Squeeze", total)
    places = f.counted(total)
    if f.attribute("causal", 1):
        ends = f("Add", f.expanded(call.begins, 1), steps)
    else:
        last = f("Add", call.begins, f("Sub", call.length, _whole(f, 1)))
        ends = f("Add", f.expanded(last, 1), f("Mul", steps, _whole(f, 0)))
    ends = f.expanded(ends, 1, 3)
    hidden = f("Greater", places, ends)
    if (window := f.attribute("local_window_size", -1)) > 0:
        early = f("LessOrEqual", places, f("Sub", ends, _whole(f, window)))
        hidden = f("Or", hidden, early)
    return f("Where", hidden, float(np.finfo(np.float32).min), 0.0)


def _shares_of(f: Formulas, call: _Call, scores: str) -> str:
    """The softmax of each row; with a sink, of one score more, which chooses nothing."""
    sink = f.input(_SINK)
    if not sink and not f.attribute("smooth_softmax", 0):
        return f("Softmax", scores, axis=-1)
    if sink:
        wide = sink if f.dtype(sink) == "float32" else f.cast(sink, "float32")
        by_group = f.reshaped(wide, call.groups, call.heads // call.groups)
        which = f("Div", f.counted(f.size(scores, 2)), call.length)
        sink = f.reshaped(f("Gather", by_group, which, axis=1), 1, call.groups, -1, 1)
    else:
        sink = f.constant(np.zeros((1, 1, 1, 1), np.float32))
    most = f("Max", f.emit("ReduceMax", [scores, *_last(f)], **_axes(f)), sink)
    powers = f("Exp", f("Sub", scores, most))
    total = f("Add", f.emit("ReduceSum", [powers, f.ints(-1)], keepdims=1), _exp(f, sink, most))
    return f("Div", powers, total)


def _exp(f: Formulas, sink: str, most: str) -> str:
    return f("Exp", f("Sub", sink, most))


def _last(f: Formulas) -> list[str]:
    return [f.ints(-1)] if f.opset >= 18 else []


def _axes(f: Formulas) -> dict[str, Any]:
    return {} if f.opset >= 18 else {"axes": [-1]}


FORMULAS: Mapping[str, Callable[[Formulas], None]] = MappingProxyType(
    {"GroupQueryAttention": _attention}
)
