"""Kernels that no rule but the generic one takes."""

from collections.abc import Callable
from typing import Any

from tvm import te, tirx

from hybridc.compiler.interfaces import PrimFunc


def transposed_product(rows: int, columns: int, depth: int) -> PrimFunc:
    """`A.T @ B.T`, neither of which is packed."""
    a, b = te.placeholder((depth, rows), name="A"), te.placeholder((columns, depth), name="B")
    k = te.reduce_axis((0, depth))
    c = te.compute((rows, columns), lambda i, j: te.sum(a[k, i] * b[j, k], axis=k), name="C")
    return te.create_prim_func([a, b, c])


def prefix_sums(rows: int, columns: int) -> PrimFunc:
    """A cumulative sum by a triangle of ones."""
    x = te.placeholder((rows, columns), name="X")
    k = te.reduce_axis((0, columns))

    def sums(i: Any, j: Any) -> Any:
        return te.sum(tirx.if_then_else(k <= j, x[i, k], tirx.const(0, "float32")), axis=k)

    return te.create_prim_func([x, te.compute((rows, columns), sums, name="S")])


def gathered_sums(entries: int, width: int, bags: int, length: int) -> PrimFunc:
    """The sum of the rows that a list of indices names, then their squares over the bags."""
    table = te.placeholder((entries, width), name="T")
    chosen = te.placeholder((bags, length), "int32", name="I")
    k, b = te.reduce_axis((0, length)), te.reduce_axis((0, bags))
    bag = te.compute((bags, width), lambda i, j: te.sum(table[chosen[i, k], j], axis=k), name="bag")
    total = te.compute((width,), lambda j: te.sum(bag[b, j] * bag[b, j], axis=b), name="total")
    return te.create_prim_func([table, chosen, total])


def distances(points: int, others: int, dimensions: int) -> PrimFunc:
    """Squared distances of points, and the least of each row."""
    x, y = (te.placeholder((n, dimensions), name=f"P{n}") for n in (points, others))
    d, j = te.reduce_axis((0, dimensions)), te.reduce_axis((0, others))

    def square(i: Any, m: Any) -> Any:
        return te.sum((x[i, d] - y[m, d]) * (x[i, d] - y[m, d]), axis=d)

    far = te.compute((points, others), square, name="far")
    near = te.compute((points,), lambda i: te.min(far[i, j], axis=j), name="near")
    return te.create_prim_func([x, y, near])


GENERIC: dict[str, Callable[[], PrimFunc]] = {
    "transposed product": lambda: transposed_product(24, 36, 17),
    "prefix sums": lambda: prefix_sums(7, 50),
    "gathered sums": lambda: gathered_sums(50, 33, 6, 5),
    "distances": lambda: distances(13, 40, 3),
}
