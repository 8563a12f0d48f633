"""The loop nest of recurrent layers: all steps in one kernel, one after the other.

Inputs were projected for all times by a product of their own.  A step multiplies the last state by
the recurrent weights, block by block of hidden units: the gates of a block lie in registers, and
what they make of the block's state needs no other block.  Equations and the order of gates are
ONNX's; arrays are `[time, batch, features]`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import tvm

from hybridc.compiler.interfaces import PrimFunc
from hybridc.compiler.ir.rewrite import Extent, opened
from hybridc.compiler.kernels.tensor_expressions import FLOPS, KERNEL

NAME = "recurrence"
# The parameter that every step multiplies the state by.
WEIGHTS = 1
# The loop over blocks, whose turns may run side by side.
BLOCKS = "block"
# The block's annotations of what is computed.
_LAYER, _REVERSE = "hybridc.layer", "hybridc.reverse"
# Hidden units of a block: a vector of AVX-512, two of AVX2, with which four gates and what they
# multiply still find registers.
LANES = 16

_HEAD = """
@T.prim_func(s_tir=True, private=True)
def main(
    projected: T.Buffer((time, batch, gates, padded), "float32"),
    weights: T.Buffer((blocks, hidden, gates, lanes), "float32"),
    bias: T.Buffer((padded,), "float32"),
    first: T.Buffer((batch, padded), "float32"),
    start: T.Buffer((batch, padded), "float32"),
    y: T.Buffer((time, batch, padded), "float32"),
    cell: T.Buffer((batch, padded), "float32"),
):
    T.func_attr({"tirx.noalias": True, "op_pattern": 8})
    with T.sblock("recurrence"):
        T.reads(
            projected[0:time, 0:batch, 0:gates, 0:padded],
            weights[0:blocks, 0:hidden, 0:gates, 0:lanes],
            bias[0:padded], first[0:batch, 0:padded], start[0:batch, 0:padded],
        )
        T.writes(y[0:time, 0:batch, 0:padded], cell[0:batch, 0:padded])
        T.sblock_attr(marks)
        state = T.alloc_buffer((2, batch, padded), "float32")
        for b, j in T.grid(batch, padded):
            state[0, b, j] = first[b, j]
            cell[b, j] = start[b, j]
        for step in T.serial(time):
            for block in T.serial(blocks):
"""
# A step of the hidden units of one block, for all sequences; or what of it comes before the state.
_STEP = """\
                with T.sblock("gates"):
                    T.reads(
                        projected[0:time, 0:batch, 0:gates, 0:padded], bias[0:padded],
                        weights[block, 0:hidden, 0:gates, 0:lanes],
                        state[0:2, 0:batch, 0:padded], cell[0:batch, 0:padded],
                    )
                    T.writes(
                        y[0:time, 0:batch, 0:padded], cell[0:batch, 0:padded],
                        state[0:2, 0:batch, 0:padded],
                    )
"""
_ALONE = """\
                    total = T.alloc_buffer((1, gates, lanes), "float32")
                    for b in T.serial(batch):
                        for g in T.unroll(gates):
                            for v in T.vectorized(lanes):
                                total[0, g, v] = START
                        for k in T.serial(hidden):
                            for g in T.unroll(gates):
                                for v in T.vectorized(lanes):
                                    total[0, g, v] = (
                                        total[0, g, v]
                                        + state[step % 2, b, k] * weights[block, k, g, v]
                                    )
                        for v in T.vectorized(lanes):
"""
# Sums of all sequences lie in the cache.  Some weights are brought to the L1 cache, and meet the
# state of some sequences at once, of each what is in registers.
_TOGETHER = """\
                    total = T.alloc_buffer((batch, gates, lanes), "float32")
                    for b in T.serial(batch):
                        for g in T.unroll(gates):
                            for v in T.vectorized(lanes):
                                total[b, g, v] = START
                    for piece in T.serial((hidden + DEPTH - 1) // DEPTH):
TILES                    for b in T.serial(batch):
                        for v in T.vectorized(lanes):
"""
_TILE = """\
                        for group, part in T.grid(COUNT, lanes // WIDTH):
                            with T.sblock("tile"):
                                T.reads(
                                    total[0:batch, 0:gates, 0:lanes], state[0:2, 0:batch, 0:padded],
                                    weights[block, 0:hidden, 0:gates, 0:lanes],
                                )
                                T.writes(total[0:batch, 0:gates, 0:lanes])
                                tile = T.alloc_buffer((ROWS, gates, WIDTH), "float32")
                                for r in T.unroll(ROWS):
                                    for g in T.unroll(gates):
                                        for v in T.vectorized(WIDTH):
                                            tile[r, g, v] = total[ROW, g, part * WIDTH + v]
                                for k in T.serial(T.min(DEPTH, hidden - piece * DEPTH)):
                                    for g in T.unroll(gates):
                                        for r in T.unroll(ROWS):
                                            for v in T.vectorized(WIDTH):
                                                tile[r, g, v] = (
                                                    tile[r, g, v]
                                                    + state[step % 2, ROW, piece * DEPTH + k]
                                                    * weights[
                                                        block, piece * DEPTH + k, g,
                                                        part * WIDTH + v
                                                    ]
                                                )
                                for r in T.unroll(ROWS):
                                    for g in T.unroll(gates):
                                        for v in T.vectorized(WIDTH):
                                            total[ROW, g, part * WIDTH + v] = tile[r, g, v]
"""
# Hidden units whose weights, 16 lanes of four gates, stay in the L1 cache.
_DEPTH = 64
_INDENT = " " * 28
_AT = "block * lanes + v"
_TIME = "(time - 1 - step if reverse else step)"
_PROJECTED = f"projected[{_TIME}, b, g, {_AT}]"


@dataclass(frozen=True)
class _Layer:
    """What sums start with, and the statements that make the new state of them."""

    gates: int
    start: str
    update: tuple[str, ...]


def _gate(function: str, number: int) -> str:
    return f"T.{function}(total[SUM, {number}, v])"


_CELL = f"cell[b, {_AT}]"
_OLD = f"state[step % 2, b, {_AT}]"
_NEW = f"state[(step + 1) % 2, b, {_AT}]"
_RESET = f"projected[{_TIME}, b, 2, {_AT}] + {_gate('sigmoid', 1)} * total[SUM, 2, v]"

_LAYERS: Mapping[str, _Layer] = MappingProxyType(
    {
        "RNN": _Layer(1, _PROJECTED, (f"{_NEW} = {_gate('tanh', 0)}",)),
        # Gates: input, output, forget, cell.
        "LSTM": _Layer(
            4,
            _PROJECTED,
            (
                f"{_CELL} = {_gate('sigmoid', 2)} * {_CELL}"
                f" + {_gate('sigmoid', 0)} * {_gate('tanh', 3)}",
                f"{_NEW} = {_gate('sigmoid', 1)} * T.tanh({_CELL})",
            ),
        ),
        # Gates: update, reset, hidden; the reset gate takes the product (linear_before_reset).
        "GRU": _Layer(
            3,
            f"T.if_then_else(g == 2, bias[{_AT}], {_PROJECTED})",
            (
                f"total[SUM, 2, v] = T.tanh({_RESET})",
                f"{_NEW} = total[SUM, 2, v] + {_gate('sigmoid', 0)} * ({_OLD} - total[SUM, 2, v])",
            ),
        ),
    }
)


def gates_of(layer: str) -> int:
    """Sums for each hidden unit of an `RNN`, `GRU` or `LSTM`."""
    return _LAYERS[layer].gates


def blocks_of(func: PrimFunc) -> list[Any]:
    """The blocks of a kernel that are a recurrence; none of another kernel."""
    from tvm.s_tir import SBlock
    from tvm_ffi import structural_walk

    found: list[Any] = []
    structural_walk(func.body, (SBlock, found.append))
    return [block for block in found if str(block.annotations.get(KERNEL, "")) == NAME]


def layer_of(block: Any) -> tuple[str, bool]:
    """The layer that the block of a kernel computes, and whether it goes back in time."""
    return str(block.annotations[_LAYER]), bool(int(block.annotations[_REVERSE]))


def kernel(  # noqa: PLR0913 - a layer's sizes, and its tile
    layer: str,
    time: Extent,
    batch: Extent,
    hidden: int,
    *,
    reverse: bool,
    rows: int = 1,
    width: int = LANES,
) -> PrimFunc:
    """All steps of one direction, float32.

    Parameters: the projected inputs `[time, batch, gates, padded]`, recurrent weights `[blocks,
    hidden, gates, lanes]`, the bias within the reset of a GRU `[padded]`, the first state and the
    first cell `[batch, padded]`; then what is written: outputs `[time, batch, padded]` and the last
    cell `[batch, padded]`.  `padded` are the hidden units in whole blocks; time and batch may be
    open.  A tile computes the gates of `width` units of a block for `rows` sequences, fewer in the
    last.
    """
    from tvm.script import tirx

    found = _LAYERS[layer]
    blocks = -(-hidden // LANES)
    body = "".join(
        f"{_INDENT}{line}\n" for line in (*found.update, f"y[{_TIME}, b, {_AT}] = {_NEW}")
    )
    step = (_TOGETHER if rows > 1 else _ALONE) + body
    text = _HEAD + _STEP + step.replace("START", found.start)
    if rows > 1:
        whole, rest = divmod(int(batch), rows)
        tiles = _tiles(whole, rows, "0") if whole else ""
        tiles += _tiles(1, rest, f"batch - {rest}") if rest else ""
        text = text.replace("TILES", tiles)
    text = text.replace("SUM", "b" if rows > 1 else "0")
    text = text.replace("WIDTH", str(width)).replace("DEPTH", str(_DEPTH))
    text = text.replace(_TIME, "time - 1 - step" if reverse else "step")
    sizes: dict[str, Any] = dict(zip(("time", "batch"), opened((time, batch)), strict=True))
    sizes["hidden"] = hidden
    sizes |= {"gates": found.gates, "blocks": blocks, "padded": blocks * LANES, "lanes": LANES}
    # Of an open batch, those of one sequence; of an open time, those of one step.
    steps = math.prod(size for size in (time, batch) if isinstance(size, int))
    flops = 2 * steps * hidden * hidden * found.gates
    marks = {KERNEL: NAME, FLOPS: flops, _LAYER: layer, _REVERSE: int(reverse)}
    made: PrimFunc = tvm.script.from_source(text, {"T": tirx, "marks": marks, **sizes})
    return made


def _tiles(count: int, rows: int, first: str) -> str:
    """So many tiles of `rows` sequences, from the `first` one on."""
    text = _TILE.replace("COUNT", str(count)).replace("ROWS", str(rows))
    return text.replace("ROW", f"{first} + group * {rows} + r")
