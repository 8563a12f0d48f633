"""Transposes through registers, against numpy: any permutation, odd extents, fused neighbours."""

from typing import Any

import numpy as np
import pytest
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_builders import operator
from tvm import relax, te, tirx

from hybridc.compiler import target
from hybridc.compiler.interfaces import NotApplicable
from hybridc.compiler.model import Array
from hybridc.schedules.transpose import Transpose

op: Any = relax.op
RULE = Transpose()
ROWS = tirx.Var("rows", "int64")


def transposed(build: Any, *inputs: Array, cpu: str = "cpu") -> Array | None:
    """Run a kernel as the rule schedules it; None where its tiles do not fit registers."""
    chosen = target.parse(cpu, threads=2)
    ((func),) = operator(build, *((x.shape, str(x.dtype)) for x in inputs))(chosen)
    match: Any = RULE.match(func, chosen)
    if isinstance(match, NotApplicable) or match.nest is None:
        return None
    scheduled = RULE.schedule(match, RULE.default(match, chosen)).mod["main"]
    result = func.params[-1]
    out = tvm.runtime.tensor(np.zeros([int(e) for e in result.shape], str(result.dtype)))
    module = tvm.IRModule({"main": scheduled.with_attr("global_symbol", "main")})
    tvm.compile(module, target=chosen.tvm)["main"](*map(tvm.runtime.tensor, inputs), out)
    return np.asarray(out.numpy())


def numbers(*shape: int, dtype: str = "float32") -> Array:
    return (np.random.default_rng(0).standard_normal(shape) * 50).astype(dtype)


@pytest.mark.parametrize("cpu", ["cpu", "avx2"])
@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((1, 3, 20, 20), (0, 2, 3, 1)),
        ((1, 20, 20, 3), (0, 3, 1, 2)),
        ((2, 4, 5, 7), (0, 2, 3, 1)),
        ((2, 5, 7, 2), (0, 3, 1, 2)),
        ((1, 64, 7, 7), (0, 2, 3, 1)),
        ((2, 7, 7, 40), (0, 3, 1, 2)),
        ((37, 29), (1, 0)),
        ((8, 8), (1, 0)),
        ((9, 10, 11), (2, 1, 0)),
        ((9, 10, 11), (1, 2, 0)),
        ((3, 12, 9, 16), (0, 2, 3, 1)),
    ],
)
def test_permutations(shape: tuple[int, ...], axes: tuple[int, ...], cpu: str) -> None:
    x = numbers(*shape)
    got = transposed(lambda v: op.permute_dims(v, list(axes)), x, cpu=cpu)
    assert got is not None
    np.testing.assert_array_equal(got, x.transpose(axes))


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.integers(1, 21), min_size=2, max_size=4).flatmap(
        lambda shape: st.tuples(st.just(shape), st.permutations(range(len(shape))))
    )
)
def test_any_permutation(case: tuple[list[int], list[int]]) -> None:
    shape, axes = case
    x = numbers(*shape)
    got = transposed(lambda v: op.permute_dims(v, list(axes)), x)
    if got is not None:
        np.testing.assert_array_equal(got, x.transpose(axes))


@pytest.mark.parametrize("dtype", ["int8", "float16", "int32", "float64", "int64"])
@pytest.mark.parametrize("shape", [(1, 3, 40), (1, 19, 23)])
def test_types(shape: tuple[int, ...], dtype: str) -> None:
    x = numbers(*shape, dtype=dtype)
    got = transposed(lambda v: op.permute_dims(v, [0, 2, 1]), x)
    if got is not None:
        np.testing.assert_array_equal(got, x.transpose(0, 2, 1))


def test_what_is_fused_with_a_transpose() -> None:
    x, y, bias = numbers(1, 24, 9, 9), numbers(1, 9, 9, 24), numbers(24)

    def build(x: Any, bias: Any, y: Any) -> Any:
        return op.nn.relu(op.add(op.add(op.permute_dims(x, [0, 2, 3, 1]), bias), y))

    got = transposed(build, x, bias, y)
    assert got is not None
    np.testing.assert_allclose(got, np.maximum(x.transpose(0, 2, 3, 1) + bias + y, 0), rtol=1e-6)


@pytest.mark.parametrize(("groups", "each"), [(2, 58), (3, 20), (4, 17), (12, 10)])
def test_a_shuffle_of_channels(groups: int, each: int) -> None:
    x = numbers(1, 5, 3, groups * each)

    def build(v: Any) -> Any:
        parted = op.reshape(v, [1, 5, 3, groups, each])
        return op.reshape(op.permute_dims(parted, [0, 1, 2, 4, 3]), x.shape)

    got = transposed(build, x)
    assert got is not None
    wanted = x.reshape(1, 5, 3, groups, each).swapaxes(3, 4).reshape(x.shape)
    np.testing.assert_array_equal(got, wanted)


def test_what_branches_or_moves_unevenly_is_left_alone() -> None:
    x = numbers(20, 20)
    padded = transposed(lambda v: op.nn.pad(op.permute_dims(v, [1, 0]), [1, 1, 1, 1]), x)
    assert padded is None


@pytest.mark.parametrize(("dtype", "side"), [("uint8", 16), ("int16", 8), ("float64", 4)])
@pytest.mark.parametrize(("rows", "columns"), [(16, 16), (17, 45), (70, 9), (4, 6)])
def test_squares_of_each_width(dtype: str, side: int, rows: int, columns: int) -> None:
    x = numbers(2, rows, columns, dtype=dtype)
    got = transposed(lambda v: op.permute_dims(v, [0, 2, 1]), x)
    assert got is not None or min(rows, columns) < side // (1 + (dtype == "uint8"))
    if got is not None:
        np.testing.assert_array_equal(got, x.transpose(0, 2, 1))


def test_indices_of_32_bits() -> None:
    """Kernels that count in 32 bits, as TE makes them of plain numbers."""
    x = te.placeholder((24, 40), "float32", "x")
    y = te.compute((40, 24), lambda i, j: x[j, i], "y")
    match = RULE.match(te.create_prim_func([x, y]), target.parse("cpu", threads=2))
    assert not isinstance(match, NotApplicable)
    assert match.nest is not None


@pytest.mark.parametrize("shape", [(ROWS, 16, 24), (2, ROWS, 24), (2, 16, ROWS)])
def test_buffers_of_open_size_raise_nothing(shape: tuple[Any, ...]) -> None:
    """Loops of fixed extents over part of a buffer, as strips have them."""
    x = te.placeholder(shape, "float32", "x")
    y = te.compute((24, 2, 16), lambda k, i, j: x[i, j, k], name="y")
    found = RULE.match(te.create_prim_func([x, y]), target.parse("avx2"))
    assert not isinstance(found, NotApplicable)
    assert (found.nest is not None) == (shape[0] is ROWS)
