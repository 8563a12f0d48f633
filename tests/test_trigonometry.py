"""sin, cos and tan of `fast-math`: errors over all of float32, and that they are vector code."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tvm
from test_fast_math import kernel, samples
from tvm import tirx
from tvm.script import from_source

from hybridc.compiler import target
from hybridc.compiler.interfaces import Context
from hybridc.passes.fast_math import FastMath
from hybridc.schedules.elementwise import Elementwise

FUNCTIONS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "sin": (tirx.sin, np.sin),
    "cos": (tirx.cos, np.cos),
    "tan": (tirx.tan, np.tan),
}
# The largest errors that the pass states, in units in the last place of the exact result.
ULPS = {"sin": 2, "cos": 2, "tan": 4}
ONE_ELEMENT = """
@T.prim_func(s_tir=True)
def main(x: T.Buffer((1,), "float32"), y: T.Buffer((1,), "float32")):
    for i in T.vectorized(1):
        with T.sblock("y"):
            at = T.axis.spatial(1, i)
            y[at] = T.sin(x[at])
"""


def scheduled(function: Callable[[Any], Any], extent: int, cpu: str, dtype: str = "float32") -> Any:
    """A module whose one kernel applies a function to a vector, vectorised as for a model."""
    wanted = target.parse(cpu)
    rule, func = Elementwise(), kernel(function, extent, dtype)["main"]
    match: Any = rule.match(func, wanted)
    return rule.schedule(match, rule.default(match, wanted)).mod


def fast(module: Any, **options: bool) -> Any:
    return FastMath(**options).apply(module, Context(target.parse("cpu")))


def run(module: Any, x: Any) -> Any:
    out = tvm.runtime.tensor(np.zeros_like(x))
    func = module["main"].with_attr("global_symbol", "main")
    tvm.compile(func, target=target.parse("cpu").tvm)["main"](tvm.runtime.tensor(x), out)
    return out.numpy()


def many() -> Any:
    """Numbers of all sizes, near multiples of pi/2, and around the largest that vectors take."""
    multiples = np.arange(-70_000, 70_000) * (np.pi / 2)
    edges = np.linspace(99_990, 100_010, 4001)
    every = np.concatenate([samples(), multiples.astype("float32"), edges.astype("float32")])
    return every[: len(every) // 16 * 16]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_error_over_all_of_float32(name: str) -> None:
    function, exact = FUNCTIONS[name]
    x = many()
    got = run(fast(scheduled(function, len(x), "cpu")), x)
    with np.errstate(all="ignore"):
        right = exact(x.astype("float64"))
    finite = np.isfinite(x)
    assert np.isnan(got[~finite]).all()
    away = np.abs(got[finite].astype("float64") - right[finite])
    spacing = np.spacing(np.maximum(np.abs(right[finite]).astype("float32"), 2.0**-126))
    ulps = away / spacing
    assert ulps.max() <= ULPS[name], x[finite][ulps.argmax()]


@pytest.mark.parametrize("name", ["sin", "tan"])
def test_signed_zero_is_kept(name: str) -> None:
    zeros = np.array([0.0, -0.0] * 8, "float32")
    got = run(fast(scheduled(FUNCTIONS[name][0], 16, "cpu")), zeros)
    np.testing.assert_array_equal(np.signbit(got), np.signbit(zeros))


@pytest.mark.parametrize("cpu", ["avx2", "avx512"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_code_is_vector_code(name: str, cpu: str) -> None:
    """Multiply-adds of whole registers; the library is called for large arguments alone."""
    module = fast(scheduled(FUNCTIONS[name][0], 4096, cpu))
    func = module["main"].with_attr("global_symbol", "main")
    text = str(tvm.compile(func, target=target.parse(cpu).tvm).mod.inspect_source("asm"))
    register = {"avx2": "ymm", "avx512": "zmm"}[cpu]
    assert re.search(rf"vfn?m\w*ps\b.*%{register}", text)


def test_several_arguments_and_what_is_around_them() -> None:
    """Each argument is asked for by itself."""

    def snake(v: Any) -> Any:
        wave = tirx.sin(v * tirx.const(3e4, "float32"))
        return v + wave * wave + tirx.cos(v) * tirx.exp(v)

    x = np.linspace(-9, 9, 4096).astype("float32")
    got = run(fast(scheduled(snake, len(x), "cpu")), x)
    v = x.astype("float64")
    scaled = (x * np.float32(3e4)).astype("float64")
    wanted = v + np.sin(scaled) ** 2 + np.cos(v) * np.exp(v)
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)


def test_what_stays_as_it_is() -> None:
    modules = [
        scheduled(tirx.sin, 64, "cpu", "float64"),
        scheduled(lambda v: tirx.sin(tirx.cos(v)), 64, "cpu"),
    ]
    for module in modules:
        assert fast(module) is module
    module = scheduled(tirx.sin, 64, "cpu")
    assert fast(module, sin=False) is module


def test_a_loop_of_one_element_is_no_vector() -> None:
    """Found by random models, where a vector's last part has one element."""
    x = np.array([0.5], np.float32)
    np.testing.assert_allclose(
        run(fast(tvm.IRModule({"main": from_source(ONE_ELEMENT)})), x), np.sin(x), 1e-5
    )
