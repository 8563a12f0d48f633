"""Elements taken at constant places, as runs of neighbours, against numpy."""

from typing import Any

import numpy as np
import pytest
from cpus import CPUS
from drawn import drawn
from hypothesis import strategies as st
from tvm import relax, te, tirx
from tvm.runtime import tensor

from hybridc.compiler import pipeline, target
from hybridc.compiler.interfaces import Context
from hybridc.compiler.ir.evaluate import evaluate

DTYPES = ["float32", "uint8", "int64", "float64", "bool", "float16"]


def numbers(shape: list[int], dtype: str) -> Any:
    """Numbers of a type, with what no arithmetic may touch."""
    rng = np.random.default_rng(0)
    values = rng.integers(0, 2 if dtype == "bool" else 100, shape).astype(dtype)
    if dtype.startswith("float"):
        values[rng.random(shape) < 0.2] = np.nan
        values[rng.random(shape) < 0.2] = -0.0
    return values


def compiled(builder: Any, cpu: str) -> Any:
    """The module that a builder made, in loop nests that are scheduled."""
    context = Context(target.parse(cpu, threads=2), pipeline.rules())
    return pipeline.run(pipeline.parse("legalize,fuse,schedule"), builder.finalize(), context)


def taken(x: Any, places: dict[int, Any], cpu: str, around: bool = False) -> Any:
    """What the compiled operator takes along each axis; perhaps with arithmetic `around` it."""
    builder = relax.BlockBuilder()
    given_ = relax.Var("x", relax.TensorType(x.shape, str(x.dtype)))
    with builder.function("main", [given_]):
        with builder.dataflow():
            y = builder.emit(relax.op.negative(given_)) if around else given_
            for axis, index in places.items():
                constant = relax.const(tensor(index), "int64")
                y = builder.emit(relax.op.take(y, constant, axis=axis))
            y = builder.emit(relax.op.abs(y)) if around else y
            out = builder.emit_output(y)
        builder.emit_func_output(out)
    return evaluate(compiled(builder, cpu), [x])[0]


def same(left: Any, right: Any) -> bool:
    """Whether two arrays hold the same bits."""
    return bool(left.dtype == right.dtype and left.tobytes() == right.tobytes())


@pytest.mark.parametrize("cpu", CPUS)
@drawn(
    10,
    50,
    shape=st.lists(st.sampled_from([2, 3, 7, 16, 33, 130]), min_size=1, max_size=3),
    widths=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=3, max_size=3),
    mode=st.sampled_from(["edge", "reflect", "wrap", "symmetric"]),
    dtype=st.sampled_from(DTYPES),
)
def test_padded_rows_are_those_of_numpy(
    cpu: str, shape: list[int], widths: list[tuple[int, int]], mode: Any, dtype: str
) -> None:
    x = numbers(shape, dtype)
    places = {
        axis: np.pad(np.arange(extent), widths[axis], mode) for axis, extent in enumerate(shape)
    }
    assert same(taken(x, places, cpu), np.pad(x, widths[: len(shape)], mode))


@pytest.mark.parametrize("cpu", CPUS)
@pytest.mark.parametrize(
    "index",
    [
        [40, 39, 38, 37],
        [5],
        [0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 40],
        [3] * 20 + [7, 8, 9, 10, 11, 12, 13, 14, 15],
        [4, 1, 4, 1, 5, 9, 2, 6],
        list(range(40, -1, -1)),
    ],
)
@pytest.mark.parametrize("axis", [0, 1])
def test_any_places(cpu: str, index: list[int], axis: int) -> None:
    x = numbers([41, 41], "float32")
    assert same(taken(x, {axis: np.array(index)}, cpu), np.ascontiguousarray(x.take(index, axis)))


@pytest.mark.parametrize("cpu", CPUS)
def test_arithmetic_before_and_behind_is_computed_with_it(cpu: str) -> None:
    x = np.random.default_rng(0).standard_normal((3, 5, 37)).astype(np.float32)
    widths = [(0, 0), (2, 1), (3, 6)]
    places = {axis: np.pad(np.arange(x.shape[axis]), widths[axis], "reflect") for axis in (1, 2)}
    assert same(taken(x, places, cpu, around=True), np.abs(-np.pad(x, widths, "reflect")))


@pytest.mark.parametrize("cpu", CPUS)
def test_what_is_chosen_within_a_part_stays_a_choice(cpu: str) -> None:
    """Parts end where loads are chosen; other comparisons change within them."""
    x, z = numbers([7, 10], "int64"), numbers([7, 13], "int64")

    def kernel(a: Any, b: Any) -> Any:
        def element(row: Any, i: Any) -> Any:
            joined = tirx.if_then_else(i < 10, a[row, i], b[row, i - 10])
            factor = tirx.Select(i < 5, tirx.const(2, "int64"), tirx.const(3, "int64"))
            return joined * factor + (i >= 17).astype("int64")

        return te.compute((7, 23), element, "chosen")

    builder = relax.BlockBuilder()
    operands = [relax.Var("x", relax.TensorType(each.shape, "int64")) for each in (x, z)]
    with builder.function("main", operands):
        with builder.dataflow():
            out = builder.emit_output(builder.emit_te(kernel, *operands))
        builder.emit_func_output(out)
    places = np.arange(23)
    wanted = np.concatenate([x, z], 1) * np.where(places < 5, 2, 3) + (places >= 17)
    assert same(evaluate(compiled(builder, cpu), [x, z])[0], wanted)
