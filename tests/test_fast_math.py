"""The polynomials of `fast-math`: errors over all of float32, and that they are vector code."""

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tvm
from numpy.typing import NDArray
from scipy import special
from tvm import relax, te, tirx

from hybridc.compiler import target
from hybridc.compiler.interfaces import Context
from hybridc.compiler.ir.evaluate import evaluate
from hybridc.passes.fast_math import FastMath
from hybridc.schedules.elementwise import Elementwise

Function = Callable[[Any], Any]
Array = NDArray[Any]

INTRINSICS: dict[str, Function] = {
    "exp": tirx.exp,
    "log": tirx.log,
    "tanh": tirx.tanh,
    "erf": tirx.erf,
    "sigmoid": tirx.sigmoid,
    "asin": tirx.asin,
    "acos": tirx.acos,
    "atan": tirx.atan,
}
# Computed in float64; what the float32 result is held against.
EXACT: dict[str, Function] = {
    "exp": np.exp,
    "log": np.log,
    "tanh": np.tanh,
    "erf": special.erf,
    "sigmoid": special.expit,
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
}
# The largest errors that the pass states, in units in the last place of the exact result.
ULPS = {"exp": 2, "log": 2, "tanh": 6, "erf": 6, "sigmoid": 4, "asin": 3, "acos": 3, "atan": 3}
# Below this, results of these functions may be 0.
VANISHING = {"exp": 2e-38, "sigmoid": 2e-38}
SPECIAL = [0.0, -0.0, math.inf, -math.inf, math.nan, 1e-45, -1e-45, 3.4e38, -3.4e38]
EXP_EDGES = [88.7228, 88.73, -87.3, -87.4, -103.97, -104.0, -104.1, 0.34657, 0.34658]


WIDE_ULPS = {"exp": 1, "log": 1, "sigmoid": 3}
WIDE: dict[str, Function] = {
    "exp": np.exp,
    "log": np.log,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
}
WIDE_EDGES = [709.78, 709.79, -708.39, -708.4, -745.2, 5e-324, 2.2e-308, 0.7071067811865475, 1.0]


def wide_samples() -> Array:
    """Bit patterns all over float64, sweeps of the middle and around 1, and edge cases."""
    drawn = np.random.default_rng(0).integers(0, 2**64, 200_000, np.uint64).view(np.float64)
    sweeps = np.linspace(-750, 715, 300_007), np.linspace(-2, 4, 300_007)
    around = np.nextafter(1, np.linspace(0.5, 1.5, 1000)), 1 + np.linspace(-1e-9, 1e-9, 5000)
    return np.concatenate([drawn, *sweeps, *around, [*SPECIAL, *EXP_EDGES, *WIDE_EDGES]])


def samples() -> Array:
    """Every 4999th of all float32 bit patterns, a dense sweep of the middle, and edge cases."""
    patterns = np.arange(0, 2**32, 4999, dtype=np.uint64).astype(np.uint32).view(np.float32)
    sweep = np.concatenate([np.linspace(-110, 95, 400_003), np.linspace(-8, 8, 400_003)])
    edges = np.array([*SPECIAL, *EXP_EDGES], np.float32)
    return np.concatenate([patterns, sweep.astype(np.float32), edges])


def kernel(function: Function, extent: int, dtype: str = "float32") -> Any:
    """A module whose one kernel applies `function` to a vector."""
    x = te.placeholder((extent,), dtype, "x")
    y = te.compute((extent,), lambda i: function(x[i]), "y")
    return tvm.IRModule({"main": te.create_prim_func([x, y])})


def compiled(module: Any, cpu: target.Target) -> Any:
    rule = Elementwise()
    match: Any = rule.match(module["main"], cpu)
    scheduled = rule.schedule(match, rule.default(match, cpu)).mod["main"]
    return tvm.compile(scheduled.with_attr("global_symbol", "main"), target=cpu.tvm)


def fast(module: Any, **options: bool) -> Any:
    return FastMath(**options).apply(module, Context(target.parse("cpu")))


def run(module: Any, x: Array, dtype: str = "float32") -> Array:
    out = tvm.runtime.tensor(np.zeros(x.shape, dtype))
    compiled(module, target.parse("cpu"))["main"](tvm.runtime.tensor(x), out)
    return out.numpy()


@pytest.mark.parametrize("name", INTRINSICS)
def test_error_over_all_of_float32(name: str) -> None:
    x = samples()
    got = run(fast(kernel(INTRINSICS[name], len(x))), x)
    with np.errstate(all="ignore"):
        exact = EXACT[name](x.astype(np.float64))
        wanted = exact.astype(np.float32)
    finite = np.isfinite(wanted)
    np.testing.assert_array_equal(got[~finite], wanted[~finite])
    spacing = np.spacing(np.maximum(np.abs(wanted[finite]), np.float32(2.0**-126)))
    away = np.abs(got[finite].astype(np.float64) - exact[finite])
    away[(got[finite] == 0) & (exact[finite] < VANISHING.get(name, 0))] = 0
    ulps = away / spacing
    assert ulps.max() <= ULPS[name], x[finite][ulps.argmax()]


@pytest.mark.parametrize("name", ["tanh", "erf"])
def test_bounded_functions_stay_within_one(name: str) -> None:
    x = samples()
    got = run(fast(kernel(INTRINSICS[name], len(x))), x)
    assert np.nanmax(np.abs(got)) == 1.0


def test_signed_zero_is_kept() -> None:
    zeros = np.array([0.0, -0.0] * 8, np.float32)
    for name in ("tanh", "erf"):
        got = run(fast(kernel(INTRINSICS[name], 16)), zeros)
        np.testing.assert_array_equal(np.signbit(got), np.signbit(zeros))


def test_gelu_is_accurate() -> None:
    x = np.linspace(-12, 12, 100_001).astype(np.float32)

    def gelu(v: Any) -> Any:
        half, root = tirx.const(0.5, "float32"), tirx.const(math.sqrt(0.5), "float32")
        return v * half * (tirx.erf(v * root) + tirx.const(1.0, "float32"))

    got = run(fast(kernel(gelu, len(x))), x)
    wanted = x * 0.5 * (1 + special.erf(x.astype(np.float64) / math.sqrt(2)))
    assert np.abs(got - wanted).max() <= 1e-6


@pytest.mark.parametrize("exponent", [1, 2, 3, 4])
def test_whole_powers_are_products(exponent: int) -> None:
    x = np.linspace(-3, 3, 1001).astype(np.float32)
    module = fast(kernel(lambda v: tirx.pow(v, tirx.const(exponent, "float32")), len(x)))
    assert "pow" not in module.script()
    np.testing.assert_allclose(run(module, x), x.astype(np.float64) ** exponent, rtol=3e-7)


def test_powers_may_be_left_alone() -> None:
    module = kernel(lambda v: tirx.pow(v, tirx.const(2.5, "float32")), 16)
    assert fast(module, power=False) is module


def test_float16_is_computed_in_float32() -> None:
    x = np.linspace(-9, 9, 999).astype(np.float16)
    got = run(fast(kernel(tirx.exp, len(x), "float16")), x, "float16")
    exact = np.exp(x.astype(np.float64))
    assert (np.abs(got - exact) <= 0.51 * np.spacing(exact.astype(np.float16))).all()


@pytest.mark.parametrize("name", WIDE_ULPS)
def test_error_over_all_of_float64(name: str) -> None:
    """The reference has 11 bits more (x87)."""
    x = wide_samples()
    got = run(fast(kernel(INTRINSICS[name], len(x), "float64")), x, "float64")
    with np.errstate(all="ignore"):
        exact = WIDE[name](x.astype(np.longdouble))
        wanted = exact.astype(np.float64)
    finite = np.isfinite(wanted)
    np.testing.assert_array_equal(got[~finite], wanted[~finite])
    spacing = np.spacing(np.maximum(np.abs(wanted[finite]), 2.0**-1022))
    away = np.abs(got[finite].astype(np.longdouble) - exact[finite])
    away[(got[finite] == 0) & (exact[finite] < 4e-308) & (name != "log")] = 0
    ulps = away / spacing
    assert ulps.max() <= WIDE_ULPS[name], x[finite][ulps.argmax()]


def test_other_functions_of_float64_stay() -> None:
    module = kernel(tirx.tanh, 16, "float64")
    assert fast(module) is module


@pytest.mark.parametrize("name", ["exp", "log", "tanh", "erf"])
def test_an_option_turns_a_function_off(name: str) -> None:
    module = kernel(INTRINSICS[name], 16)
    assert fast(module, **{name: False}) is module


@pytest.mark.parametrize("cpu", ["avx2", "avx512"])
@pytest.mark.parametrize(
    ("name", "dtype"),
    [*((name, "float32") for name in INTRINSICS), *((name, "float64") for name in WIDE_ULPS)],
)
def test_code_is_vector_code(name: str, dtype: str, cpu: str) -> None:
    """No call of the C library, and whole registers, in the code for both vector widths."""
    wanted = target.parse(cpu)
    module = fast(kernel(INTRINSICS[name], 4096, dtype))
    text = str(compiled(module, wanted).mod.inspect_source("asm"))
    assert not re.search(r"call\w*\s+(exp|log|tanh|erf)f?\b", text)
    register = {"avx2": "ymm", "avx512": "zmm"}[cpu]
    assert re.search(rf"v(mul|fm)\w*p[sd]\b.*%{register}", text)


def test_without_the_pass_the_code_calls_the_library() -> None:
    """Else the test above would find no call whatever the pass does."""
    module = compiled(kernel(tirx.exp, 64), target.parse("avx2"))
    assert re.search(r"call\w*\s+expf?\b", str(module.mod.inspect_source("asm")))


def test_rewritten_kernels_run_inside_a_model() -> None:
    """Values bound inside expressions survive inlining, fusion and vectors."""
    from hybridc.compiler import pipeline

    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((3, 37), "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            inner = builder.emit(relax.op.exp(relax.op.tanh(x)))
            y = builder.emit_output(relax.op.multiply(relax.op.sigmoid(inner), relax.op.erf(inner)))
        builder.emit_func_output(y)
    context = Context(target.parse("cpu"), pipeline.rules())
    steps = pipeline.parse("legalize,fuse,fast-math,schedule")
    value = np.random.default_rng(0).standard_normal((3, 37)).astype(np.float32)
    (got,) = evaluate(pipeline.run(steps, builder.finalize(), context), [value])
    inner_value = np.exp(np.tanh(value.astype(np.float64)))
    wanted = special.expit(inner_value) * special.erf(inner_value)
    np.testing.assert_allclose(got, wanted, rtol=3e-6)


def test_deeply_nested_functions_compile() -> None:
    """What TVM expands grows with each level of nesting; the outermost levels stay calls."""
    x = np.linspace(-1, 1, 64).astype(np.float32)

    def nested(v: Any) -> Any:
        for _ in range(8):
            v = tirx.exp(tirx.const(0.0, "float32") - v)
        return v

    wanted = x.astype(np.float64)
    for _ in range(8):
        wanted = np.exp(-wanted)
    np.testing.assert_allclose(run(fast(kernel(nested, len(x))), x), wanted, rtol=1e-5)


def test_functions_of_what_takes_long_to_expand_compile() -> None:
    """Few functions may do: what is asked of a logarithm's argument is asked of a power in it."""
    x = np.linspace(0.25, 1, 64).astype(np.float32)

    def nested(v: Any) -> Any:
        return tirx.log(tirx.const(1.0, "float32") + tirx.pow(v, tirx.const(2.5, "float32")))

    func = fast(kernel(nested, len(x)))
    np.testing.assert_allclose(run(func, x), np.log1p(x.astype(np.float64) ** 2.5), rtol=5e-6)
