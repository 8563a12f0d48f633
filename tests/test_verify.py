"""Comparing outputs: against numpy's own `allclose`, and on every odd value."""

import dataclasses
import json
import math
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from hybridc.compiler.assurance import certificate
from hybridc.compiler.assurance.contract import Contract, Measured
from hybridc.compiler.assurance.terms import Terms, Trial
from hybridc.compiler.assurance.verify import TOLERANCES, USUAL, How, check, compare
from hybridc.compiler.errors import WrongAnswerError
from hybridc.compiler.model import Array, Model, TensorSpec

INF, NAN = math.inf, math.nan


def f32(*values: float) -> Array:
    return np.array(values, np.float32)


pairs = array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4).flatmap(
    lambda shape: st.tuples(*[arrays(np.float32, shape, elements=st.floats(width=32))] * 2)
)


@given(pair=pairs, rtol=st.floats(0, 1), atol=st.floats(0, 10))
def test_it_agrees_with_numpy(pair: tuple[Array, Array], rtol: float, atol: float) -> None:
    wanted, got = (array.astype(np.float64) for array in pair)
    found = compare("y", wanted, got, How(rtol, atol))
    close = np.isclose(got, wanted, rtol, atol, equal_nan=True)
    assert found.differing == np.count_nonzero(~close)
    assert found.ok == bool(close.all())
    if not found.ok:
        assert found.first == tuple(np.argwhere(~close)[0])
    json.dumps(found.describe(), allow_nan=False)


def test_figures_of_a_small_case() -> None:
    wanted, got = f32(1, 2, 3, 4).reshape(2, 2), f32(1, 2, 3.5, 3).reshape(2, 2)
    found = compare("y", wanted, got)
    assert (found.differing, found.first, found.wanted, found.got) == (2, (1, 0), 3, 3.5)
    assert found.max_abs == 1
    assert found.max_rel == pytest.approx(0.25)
    assert found.top1 == 0.5
    assert found.snr_db == pytest.approx(10 * math.log10(30 / 1.25))
    assert found.cosine == pytest.approx(27.5 / math.sqrt(30 * 26.25))
    assert found.describe()["shape"] == [2, 2]


def test_equal_outputs_are_perfect() -> None:
    found = compare("y", f32(1, NAN, INF, -INF), f32(1, NAN, INF, -INF))
    assert found.ok
    assert (found.max_abs, found.max_rel, found.cosine, found.snr_db) == (0, 0, 1, INF)
    assert found.first is None


@pytest.mark.parametrize(("wanted", "got"), [(1, NAN), (NAN, 1), (INF, 1), (1, INF), (INF, -INF)])
def test_a_broken_value_on_one_side_is_as_wrong_as_can_be(wanted: float, got: float) -> None:
    found = compare("y", f32(0, wanted), f32(0, got), How(10, 10))
    assert not found.ok
    assert found.first == (1,)
    assert (found.max_abs, found.cosine, found.snr_db) == (INF, -1, -INF)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16"])
def test_tensors_of_a_quantised_model_may_round_otherwise(dtype: str) -> None:
    wanted: Array = np.array([0, 60, 120], dtype)
    got = wanted + np.array([0, 1, 0], dtype)
    assert compare("y", wanted, got, how=How(precision="int8")).ok
    assert not compare("y", wanted, got).ok


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int32", "int64"])
def test_integers_are_exact(dtype: str) -> None:
    wanted: Array = np.array([0, 1, 1], dtype)
    assert compare("y", wanted, wanted.copy()).ok
    assert compare("y", wanted, np.array([0, 1, 0], dtype)).first == (2,)


def test_large_integers_are_not_compared_as_floats() -> None:
    wanted = np.array([2**60])
    assert not compare("y", wanted, wanted + 1).ok


@pytest.mark.parametrize("dtype", [*TOLERANCES, "float8_e4m3fn"])
def test_tolerances_are_those_of_the_dtype(dtype: str) -> None:
    kind = np.dtype(dtype)
    found = compare("y", np.ones(2).astype(kind), np.ones(2).astype(kind))
    unit = float(ml_dtypes.finfo(kind).eps)
    assert found.rtol >= 8 * unit or found.rtol == 1e-5
    one: Array = np.array([1.0]).astype(kind)
    near: Array = np.array([1.0 + min(found.rtol, 0.5)]).astype(kind)
    assert compare("y", one, near).ok
    assert not compare("y", one, np.array([1 + 4 * found.rtol]).astype(kind)).ok


def test_small_outputs_are_not_all_alike() -> None:
    """Of 50,000 probabilities each is below the absolute tolerance of numbers near 1."""
    words = np.random.default_rng(0).dirichlet(np.ones(50_000)).astype(np.float32)
    assert compare("y", words, words * np.float32(1 + 1e-4)).ok
    assert not compare("y", words, words[::-1]).ok
    assert not compare("y", words, np.zeros_like(words)).ok
    # What is left of numbers near 1 that cancel is noise.
    assert compare("y", f32(1e-7, 0), f32(-2e-7, 1e-7)).ok


@pytest.mark.parametrize("shape", [(0,), (2, 0), (0, 3)])
def test_empty_outputs_agree(shape: tuple[int, ...]) -> None:
    empty: Array = np.zeros(shape, np.float32)
    assert compare("y", empty, empty).ok


def test_scalars_are_compared() -> None:
    found = compare("y", np.array(1.0), np.array(2.0))
    assert found.first == ()
    with pytest.raises(WrongAnswerError, match=r"at \[\]: wanted 1, got 2"):
        check([found])


@pytest.mark.parametrize("got", [f32(1, 2, 3), np.array([1.0, 2.0]), f32(1, 2).reshape(2, 1)])
def test_another_shape_or_dtype_is_wrong(got: Array) -> None:
    with pytest.raises(WrongAnswerError, match=r"output wanted: y float32\[2\], computed: y float"):
        compare("y", f32(1, 2), got)


def test_huge_values_do_not_overflow() -> None:
    wanted = np.array([1e200, -1e200])
    found = compare("y", wanted, wanted * (1 + 1e-9))
    assert found.ok
    assert found.cosine == pytest.approx(1)
    assert math.isfinite(found.snr_db)


def test_check_names_the_first_difference() -> None:
    good = compare("good", f32(1), f32(1))
    bad = compare("bad", f32(1, 2, 3).reshape(1, 3), f32(1, 2.5, 4).reshape(1, 3))
    check([good])
    with pytest.raises(WrongAnswerError) as error:
        check([good, bad, bad])
    assert str(error.value) == (
        "output 'bad' differs from the reference at [0,1]: wanted 2, got 2.5 "
        "(rtol 0.001, atol 0.0001); 2 of 3 elements differ, at most by 1; 1 more outputs are wrong"
    )


@pytest.mark.parametrize("dtype", ["int8", "bf16"])
def test_of_nothing_but_zeros_it_is_said_that_they_tell_nothing(dtype: str) -> None:
    zeros = np.zeros((1, 4), np.float32)
    found = [compare("y", zeros, zeros + np.float32(0.01), how=How(precision=dtype))]
    with pytest.raises(WrongAnswerError, match=r"zero throughout.* give --calibr"):
        check(found, dtype)


def test_the_inputs_are_left_alone() -> None:
    given: Any = f32(1, 2)
    given.flags.writeable = False
    assert compare("y", given, given).ok


def test_what_was_allowed_beside_the_tolerance_is_told_and_certified() -> None:
    """Rows in another order, elements that the reference chooses otherwise, its own movement."""
    plain = compare("y", np.ones((2, 3), np.float32), np.ones((2, 3), np.float32))
    assert not plain.allowances
    model = Model("m", None, (), (TensorSpec("y", (2, 3), "float32"),), lambda _: [])
    terms = Terms(True, USUAL, Contract(), "random")
    for name, word in (("reordered", "elsewhere"), ("excused", "elements"), ("condition", "moves")):
        lenient = dataclasses.replace(plain, **{name: 3})
        assert lenient.allowances == {name: 3}
        assert word in lenient.told()
        told = certificate.written(Trial(model, [{}], []), terms, [plain, lenient], Measured(), [])
        assert [each.get(name) for each in told["agreement"]] == [None, 3]
