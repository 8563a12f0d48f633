"""TVM's sketches as points: there and back, and what a trace from elsewhere may do."""

import json
import random
from typing import Any

import pytest
from generic_kernels import GENERIC
from kernel_corpus import KERNELS
from tvm import te, tirx

from hybridc.compiler import target
from hybridc.compiler.interfaces import Point, PrimFunc
from hybridc.compiler.tuning import sketches
from hybridc.compiler.tuning.sketches import SKETCH, THREADS, Sketches

CPU = target.parse("avx2", threads=2)
SOFTMAX = dict(KERNELS)["softmax of 128"](CPU)[0]


def known(name: str) -> Sketches:
    return sketches.sketches(GENERIC[name](), CPU)


def drawn(found: Sketches, count: int = 10) -> list[Point]:
    draw = random.Random(0)
    space = {THREADS: (1,), **found.space, SKETCH: found.space[SKETCH][1:]}
    return [{knob: draw.choice(values) for knob, values in space.items()} for _ in range(count)]


@pytest.mark.parametrize("name", GENERIC)
def test_a_trace_of_a_point_is_that_point_again(name: str) -> None:
    found = known(name)
    for point in drawn(found):
        canonical = found.canonical(point)
        assert found.canonical(canonical) == canonical
        assert all(canonical[knob] in values for knob, values in found.space.items())
        trace = found.every[point[SKETCH] - 1].decided(point)
        assert found.point(trace) == canonical
        assert found.point(text(trace)) == canonical


@pytest.mark.parametrize("name", GENERIC)
def test_sketches_come_in_the_same_order(name: str) -> None:
    first, second = known(name), known(name)
    assert [sketch.form for sketch in first.every] == [sketch.form for sketch in second.every]
    assert first.space == second.space


def test_the_number_of_threads_moves_no_point() -> None:
    """A log of a machine with other cores has the same points."""
    func = GENERIC["distances"]()
    one, many = (sketches.sketches(func, target.parse("avx2", threads=n)) for n in (1, 16))
    assert one.space == many.space
    for point in drawn(many, 5):
        trace = many.every[point[SKETCH] - 1].decided(point)
        assert one.point(trace) == one.canonical(point)


def test_one_thread_takes_the_parallel_loops_out() -> None:
    found = known("distances")
    point = drawn(found, 1)[0]
    assert "T.parallel" in found.schedule(point).mod.script()
    assert "T.parallel" not in found.schedule({**point, THREADS: 0}).mod.script()


def text(trace: Any) -> str:
    """A trace as TVM's database has it."""
    return json.dumps(sketches.plain(trace.as_json()))


def changed(change: str) -> str:
    """The trace of a softmax with something wrong in it."""
    found = sketches.sketches(SOFTMAX, CPU)
    (point, *_) = drawn(found)
    instructions, decisions = json.loads(text(found.every[point[SKETCH] - 1].decided(point)))
    if change == "an instruction more":
        instructions.append(["ImportModule", [], ["/etc/passwd"], []])
    elif change == "an instruction less":
        instructions.pop()
    elif change == "no decisions":
        decisions.clear()
    elif change == "decisions of words":
        decisions = [[index, "os.system"] for index, _ in decisions]
    elif change == "a category that is none":
        decisions = [[index, 99] for index, _ in decisions]
    elif change == "an endless number":
        decisions = [[index, 1e400] for index, _ in decisions]
    else:
        raise AssertionError(change)
    return json.dumps([instructions, decisions])


@pytest.mark.parametrize(
    "trace",
    [
        *("", "null", "[]", "[[], []]", "{}", '"x"', "[1, 2]", '[[["A"]], []]', "[[[]], []]"),
        *("[" * 100_000, '[[["GetSBlock", [], ["x", "main"], ["b0"]]], [[0, [1]]]]', "\ud800"),
    ],
)
def test_text_that_is_no_trace_is_no_point(trace: str) -> None:
    assert known("distances").point(trace) is None


@pytest.mark.parametrize(
    "change",
    [
        *("an instruction more", "an instruction less", "no decisions"),
        *("decisions of words", "a category that is none", "an endless number"),
    ],
)
def test_a_trace_that_is_not_ours_is_no_point(change: str) -> None:
    assert sketches.sketches(SOFTMAX, CPU).point(changed(change)) is None


def test_a_trace_of_any_size_is_not_read() -> None:
    assert known("distances").point("[" + " " * 2**20 + "]") is None


def test_a_trace_with_wild_numbers_becomes_a_point_of_the_space() -> None:
    """Factors that do not divide, a place that does not exist: the nearest that does."""
    found = known("distances")
    point = drawn(found)[0]
    instructions, decisions = json.loads(text(found.every[point[SKETCH] - 1].decided(point)))
    wild = [[i, [7] * len(d) if isinstance(d, list) else 0] for i, d in decisions]
    near = found.point(json.dumps([instructions, wild]))
    assert near is not None
    assert all(near[knob] in values for knob, values in found.space.items())
    assert found.schedule(near)


def open_sizes() -> PrimFunc:
    n = tirx.Var("n", "int64")
    x = te.placeholder((n, 4), name="X")
    return te.create_prim_func([x, te.compute((n, 4), lambda i, j: x[i, j] + 1.0, name="Y")])


@pytest.mark.parametrize(
    "func", [open_sizes, lambda: dict(KERNELS)["sort"](CPU)[0]], ids=["open sizes", "sort"]
)
def test_kernels_without_sketches_have_no_knobs(func: Any) -> None:
    found = sketches.sketches(func(), CPU)
    assert found.space == {}
    assert found.canonical({THREADS: 1}) == {THREADS: 1}
    assert found.point("[[], []]") is None
