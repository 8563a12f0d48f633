"""ONNX Runtime's rotary embedding, written with ONNX's operators."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from hybridc.compiler.frontends.onnx_graph.formulas import Formulas


@dataclass(frozen=True)
class Turn:
    """Cosines and sines of `half` pairs of elements of each head, whose size is `size`.

    The two of a pair stand in two halves where `apart` is true, and side by side else.
    """

    cos: str
    sin: str
    half: int
    size: int
    apart: bool


def turned(f: Formulas, x: str, turn: Turn) -> str:
    """The pairs of each head turned by their angles; what is behind them stays."""
    half, rest = turn.half, turn.size - 2 * turn.half
    parts = f.split(x, [2 * half, rest]) if rest else [x]
    one, two = _pairs(f, parts[0], turn)
    first = f("Sub", f("Mul", one, turn.cos), f("Mul", two, turn.sin))
    second = f("Add", f("Mul", one, turn.sin), f("Mul", two, turn.cos))
    if turn.apart:
        return f("Concat", first, second, *parts[1:], axis=-1)
    stacked = f("Concat", f.expanded(first, 4), f.expanded(second, 4), axis=-1)
    made = f.reshaped(stacked, 0, 0, 0, 2 * half)
    return f("Concat", made, *parts[1:], axis=-1) if rest else made


def _pairs(f: Formulas, x: str, turn: Turn) -> tuple[str, str]:
    """The two elements of each pair."""
    if turn.apart:
        first, second = f.split(x, [turn.half, turn.half])
        return first, second
    both = f.split(f.reshaped(x, 0, 0, 0, turn.half, 2), [1, 1])
    one, two = (f.reshaped(each, 0, 0, 0, turn.half) for each in both)
    return one, two


def _rotary(f: Formulas) -> None:
    x, places, rank = f.input(0), f.input(1), len(f.dims(f.input(0)))
    half = f.fixed(f.input(2), 1)
    # Packed batches alone may be longer than the tables; each token has a place in these anyway.
    f.refuse(rank not in (3, 4))
    apart = not f.attribute("interleaved", 0)
    count = f.attribute("num_heads", 0)
    if rank == 3:
        hidden = f.fixed(x, 2)
        size = hidden // count if count else 2 * half
        heads = f.reshaped(x, 0, 0, hidden // size, size)
    else:
        size, heads = f.fixed(x, 3), x
    f.refuse(f.attribute("rotary_embedding_dim", 0) not in (0, 2 * half))
    length = f.size(x, 1 if rank == 3 else 2)
    if len(f.dims(places)) == 1:  # where the sequence begins
        f.refuse(f.dims(places) != [1])
        places = f.expanded(f("Add", f.counted(length), places), 0)
    axis = 2 if rank == 3 else 1
    angles = [f.expanded(f("Gather", f.input(i), places), axis) for i in (2, 3)]
    made = turned(f, heads, Turn(angles[0], angles[1], half, size, apart))
    f.named(f.reshaped(made, 0, 0, -1) if rank == 3 else made)


FORMULAS: Mapping[str, Callable[[Formulas], None]] = MappingProxyType({"RotaryEmbedding": _rotary})
