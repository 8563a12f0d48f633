"""Keys or values of earlier tokens with those of now behind them, sequence by sequence.

Rows are copied once, to where they belong.  Nothing outside of an operand is read, whatever the
places say.
"""

from collections.abc import Sequence
from typing import Any

from tvm import te, tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as script

from hybridc.compiler.interfaces import PrimFunc
from hybridc.compiler.kernels.rows.scans import abreast
from hybridc.compiler.kernels.tensor_expressions import written

_LANES = (16, 8, 4)


def joined(past: Sequence[Any], new: Sequence[Any], within: bool, dtype: str) -> PrimFunc:
    """A function of tensors of these shapes, `[batch, heads, tokens, width]`, and `begins`.

    Of each sequence, tokens of now stand from `begins[batch]` on, behind earlier ones.  The result
    has room for all, or is as long as the earlier ones where these are a buffer that holds them
    `within`.  What is behind is 0.
    """
    sizes: dict[str, Any] = {}

    def own(name: str, size: Any) -> Any:
        fixed = isinstance(size, int | tirx.IntImm)
        return tirx.const(int(size), "int64") if fixed else sizes.setdefault(name, _var(name))

    batch, heads, width = own("batch", new[0]), own("heads", new[1]), own("width", new[3])
    held, length = own("held", past[2]), own("length", new[2])
    total = held if within else held + length
    operands = [
        te.placeholder((batch, heads, held, width), dtype, "past"),
        te.placeholder((batch, heads, length, width), dtype, "new"),
        te.placeholder((batch,), "int64", "begins"),
    ]
    result = te.extern(
        [(batch, heads, total, width)],
        operands,
        lambda ins, outs: _loops(ins, outs[0], (held, length, total)),
        dtype=dtype,
    )
    return written([*operands, result])


def _var(name: str) -> Any:
    return tirx.Var(name, "int64")


def _loops(ins: Any, out: Any, sizes: tuple[Any, Any, Any]) -> Any:
    held, length, total = sizes
    batch, heads, _, width = out.shape
    part = _part(width)
    with IRBuilder() as builder:
        past, new, begins, y = (script.buffer_proxy(each) for each in (*ins, out))
        with script.parallel(tirx.const(0, "int64"), batch * heads) as head:
            begin = begins[tirx.floordiv(head, heads)]
            first = script.Bind(tirx.max(tirx.min(begin, held), tirx.const(0, "int64")))
            end = script.Bind(tirx.min(first + length, total))
            for low, high, source, start in (
                (tirx.const(0, "int64"), first, past, head * held),
                (first, end, new, head * length - first),
                (end, total, None, None),
            ):
                with script.serial(tirx.const(0, "int64"), high - low) as row:
                    to = (head * total + low + row) * width
                    at = None if start is None else (start + low + row) * width
                    _put(part, y, to, source, at)
        return builder.get()


def _part(width: Any) -> tuple[Any, int]:
    """Vectors of a row, and their lanes."""
    if not isinstance(width, tirx.IntImm):
        return width, 1
    lanes = next((lanes for lanes in _LANES if int(width) % lanes == 0), 1)
    return int(width) // lanes, lanes


def _put(part: tuple[Any, int], y: Any, to: Any, source: Any, at: Any) -> None:
    def store(i: Any) -> None:
        y[to + i] = tirx.const(0, y.dtype) if source is None else source[at + i]

    abreast(part, store)
