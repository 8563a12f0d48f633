"""Tiles of weights that are packed: they wait in registers while the tiles before are multiplied.

A thread reads 16 bytes of integers and their scales, a step before it unpacks them to shared memory
beside the products of another one: so they have all of that step to come.
"""

from collections.abc import Callable
from typing import Any

from tvm import tirx

from hybridc.schedules.cuda import tir
from hybridc.schedules.cuda.operands import Source, Tile
from hybridc.schedules.cuda.packed_weights import Weights
from hybridc.schedules.cuda.product_kernel import substituted

_FULL = 4  # bytes of a float32
Expr = Any


def registers(source: Source, own: int, threads: int) -> int:
    """Registers of a thread in which its share of a tile waits."""
    if source.weights is None:
        return 0
    return _turns(source, own, threads) * source.weights.held


def unpacking(source: Source) -> int:
    """Registers for the weights of a piece."""
    if source.weights is None:
        return 0
    return source.weights.deep * source.weights.wide * source.size // _FULL


def read(tile: Tile, held: Any) -> Any:
    """Ask for this thread's share of a tile, `held` by registers."""
    source, place = tile.source, tile.place

    def turn(weights: Weights, at: Expr, row: Expr, step: Expr) -> Any:
        own, k = place.first + row, tile.step * source.step + step
        axes = tile.axes(own, k)
        loads = (substituted(load, axes) for load in (weights.integers, weights.scales))
        valid = tir.number(1)
        if inside := tile.inside(own, k):
            valid = tirx.Select(tir.together(inside), valid, tir.number(0))
        return tir.call("load_weights", tir.address(held, at), *map(tirx.address_of, loads), valid)

    return _each(tile, turn)


def unpacked(tile: Tile, held: Any) -> Any:
    """Write what `held` has of a tile to shared memory."""

    def turn(weights: Weights, at: Expr, row: Expr, step: Expr) -> Any:
        to, source = tir.address(tile.memory, tile.base), tile.source
        if source.size < _FULL:
            name = f"put_pairs<hybridc_{source.operand.dtype}, {weights.bits}>"
            return tir.call(name, to, row, step, tir.address(held, at))
        name = f"put_weights<{weights.bits}>"
        return tir.call(name, to, row, step // source.chunk, tir.address(held, at))

    return _each(tile, turn)


def _turns(source: Source, own: int, threads: int) -> int:
    """Pieces of a tile for each thread."""
    assert source.weights is not None
    return -(-own // source.weights.wide * (source.step // source.weights.deep) // threads)


def _each(tile: Tile, body: Callable[[Weights, Expr, Expr, Expr], Any]) -> Any:
    """For each piece of this thread: its registers, first row and first step of the depth."""
    source, place = tile.source, tile.place
    weights = source.weights
    assert weights is not None
    across = source.step // weights.deep
    count = place.own // weights.wide * across

    def turn(i: Expr) -> Any:
        q = i * place.threads + place.thread
        row, step = q // across * weights.wide, q % across * weights.deep
        inside = [q < count] if count % place.threads else []
        return tir.when(inside, body(weights, i * weights.held, row, step))

    return tir.unrolled(_turns(source, place.own, place.threads), turn, "piece")
