"""Shares of parallel loops: of open extents, in branches, and within loops."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import tvm
from tvm import s_tir, tirx

from hybridc.compiler.aot import parts
from hybridc.compiler.aot.region import Kernel
from hybridc.compiler.building import stack
from hybridc.compiler.model import Array

PARALLEL, SERIAL = tirx.ForKind.PARALLEL, tirx.ForKind.SERIAL
N = tirx.Var("n", "int64")
X, Y = (tirx.decl_buffer((N, 8), "float32", name) for name in "xy")
Statement = Any


def number(value: int) -> Any:
    return tirx.const(value, "int64")


def loop(kind: Any, extent: Any, body: Callable[[Any], Statement]) -> Statement:
    var = tirx.Var("i", "int64")
    extent = number(extent) if isinstance(extent, int) else extent
    return tirx.For(var, number(0), extent, kind, body(var))


def added(row: Any, column: Any) -> Statement:
    """One more than there was: a turn that is taken twice is seen."""
    one = tirx.BufferLoad(Y, [row, column]) + tirx.BufferLoad(X, [row, column])
    return tirx.BufferStore(Y, one, [row, column])


def rows(kind: Any, extent: Any = N) -> Statement:
    return loop(kind, extent, lambda i: loop(SERIAL, 8, lambda j: added(i, j)))


def kernel(*statements: Statement) -> Any:
    root = s_tir.SBlock([], [], [], "root", parts.sequence(statements))
    made = tirx.PrimFunc([X, Y], s_tir.SBlockRealize([], True, root))
    return made.with_attr({"s_tir": True, "tirx.noalias": True})


def run(func: Any, threads: int, sizes: Sequence[int]) -> list[Array]:
    """What a kernel in parts adds to zeros, at several sizes."""
    found = parts.split(func, threads)
    assert found is not None
    names = [tvm.ir.GlobalVar(f"part{index}") for index in range(len(found.parts))]
    whole = Kernel(found, names).alone(func).with_attr({"global_symbol": "main", "s_tir": True})
    functions = dict(zip(names, (part.func for part in found.parts), strict=True))
    module = tvm.IRModule({**functions, tvm.ir.GlobalVar("main"): whole})
    built = tvm.compile(module, target="llvm", tir_pipeline=stack.TIR_PIPELINE).jit()
    answers: list[Array] = []
    for size in sizes:
        x = np.arange(8 * size, dtype=np.float32).reshape(size, 8) + 1
        made = tvm.runtime.tensor(np.zeros_like(x))
        built["main"](tvm.runtime.tensor(x), made)
        answers.append(made.numpy() / x)
    return answers


def tasks(func: Any, threads: int) -> list[int]:
    found = parts.split(func, threads)
    return [] if found is None else [part.tasks for part in found.parts]


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_turns_of_an_open_extent_are_all_taken_once(threads: int) -> None:
    func = kernel(rows(PARALLEL), rows(SERIAL))
    assert tasks(func, threads) == [threads, 1]
    for answer in run(func, threads, (0, 1, 2, 4, 5, 11)):
        np.testing.assert_array_equal(answer, np.full_like(answer, 2))


def test_what_is_in_no_parallel_loop_is_done_once() -> None:
    many = number(4) <= N
    func = kernel(tirx.IfThenElse(many, rows(PARALLEL), rows(SERIAL)))
    assert tasks(func, 3) == [3]
    for answer in run(func, 3, (1, 3, 4, 9)):
        np.testing.assert_array_equal(answer, np.ones_like(answer))


def test_counts_of_sizes_are_made_where_they_are_needed() -> None:
    half = tirx.Var("half", "int64")
    rest = tirx.Var("rest", "int64")
    func = kernel(
        tirx.Bind(half, tirx.floordiv(N, 2)),
        rows(PARALLEL, half),
        tirx.Bind(rest, N - half),
        tirx.IfThenElse(rest > number(2), rows(PARALLEL, rest), None),
    )
    assert tasks(func, 2) == [2, 2]
    for size, answer in zip((1, 4, 7), run(func, 2, (1, 4, 7)), strict=True):
        wanted = np.zeros((size, 8), np.float32)
        wanted[: size // 2] += 1
        wanted[: (size - size // 2) * (size - size // 2 > 2)] += 1
        np.testing.assert_array_equal(answer, wanted)


def test_a_parallel_loop_of_one_turn_is_none() -> None:
    within = loop(PARALLEL, N, lambda i: loop(PARALLEL, 1, lambda _: added(i, number(3))))
    branch = tirx.IfThenElse(number(3) < N, rows(PARALLEL), rows(PARALLEL, 1))
    func = kernel(within, branch)
    assert tasks(func, 2) == [2, 2]
    for size, answer in zip((1, 3, 5), run(func, 2, (1, 3, 5)), strict=True):
        wanted = np.zeros((size, 8), np.float32)
        wanted[:, 3] += 1
        wanted[: size if size > 3 else 1] += 1
        np.testing.assert_array_equal(answer, wanted)


def test_threads_go_through_a_loop_whose_turns_read_nothing_of_others() -> None:
    def copied(j: Any) -> Statement:
        return loop(PARALLEL, N, lambda i: stored(i, j))

    def stored(i: Any, j: Any) -> Statement:
        return tirx.BufferStore(Y, tirx.BufferLoad(X, [i, j]), [i, j])

    func = kernel(loop(SERIAL, 8, copied))
    assert tasks(func, 3) == [3]
    for answer in run(func, 3, (1, 2, 7)):
        np.testing.assert_array_equal(answer, np.ones_like(answer))


@pytest.mark.parametrize(
    "statement",
    [
        loop(SERIAL, 8, lambda j: loop(PARALLEL, N, lambda i: added(i, j))),
        loop(SERIAL, 8, lambda j: parts.sequence([rows(PARALLEL), added(number(0), j)])),
        loop(PARALLEL, 8, lambda j: loop(PARALLEL, N, lambda i: added(i, j))),
        parts.sequence([loop(SERIAL, 2, lambda _: parts.sequence([rows(PARALLEL)] * 2))]),
    ],
    ids=["read back", "something beside", "parallel twice", "two of them"],
)
def test_what_threads_would_wait_for_is_left_to_tvm(statement: Statement) -> None:
    assert parts.split(kernel(statement), 2) is None
