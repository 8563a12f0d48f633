"""Powers by `fast-math`: errors over all of float32, C's special cases, and vector code."""

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tvm
from numpy.typing import NDArray
from tvm import te, tirx

from hybridc.compiler import target
from hybridc.compiler.interfaces import Context
from hybridc.passes.fast_math import FastMath
from hybridc.schedules.elementwise import Elementwise

Array = NDArray[Any]

# What the pass states, in units in the last place of the exact result.
ULPS = 2
SPECIAL = (
    *(0.0, -0.0, math.inf, -math.inf, math.nan, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5, 3.0, -3.0),
    *(1e-45, -1e-45, 3.4e38, -3.4e38, 1.5, -1.5, 1e10, 16777215.0, 0.99999994, 1.0000001),
)
EXPONENTS = (
    *(0.0, -0.0, 0.5, -0.5, -1.0, -2.0, 0.75, -0.75, 1.7, 2.5, -3.0, 5.0, -7.0, 10.0, 101.0),
    *(1e-3, 1e10, math.inf, -math.inf, math.nan),
)


def compiled(function: Callable[..., Any], extent: int, operands: int, dtype: str) -> Any:
    inputs = [te.placeholder((extent,), dtype, f"x{i}") for i in range(operands)]
    result = te.compute((extent,), lambda i: function(*(x[i] for x in inputs)), "y")
    module = tvm.IRModule({"main": te.create_prim_func([*inputs, result])})
    cpu = target.parse("cpu")
    module = FastMath().apply(module, Context(cpu))
    rule = Elementwise()
    match: Any = rule.match(module["main"], cpu)
    scheduled = rule.schedule(match, rule.default(match, cpu)).mod["main"]
    return tvm.compile(scheduled.with_attr("global_symbol", "main"), target=cpu.tvm)


def run(function: Callable[..., Any], *operands: Array) -> Array:
    dtype = str(operands[0].dtype)
    made = compiled(function, len(operands[0]), len(operands), dtype)
    out = tvm.runtime.tensor(np.zeros(operands[0].shape, dtype))
    made["main"](*map(tvm.runtime.tensor, operands), out)
    return out.numpy()


def check(got: Array, x: Array, y: Any) -> None:
    with np.errstate(all="ignore"):
        # As an array: for a scalar of 0.5 numpy takes roots, which are no powers of -inf.
        exact = np.power(x.astype(np.float64), np.broadcast_to(y, x.shape).astype(np.float64))
        wanted = exact.astype(np.float32)
    finite = np.isfinite(wanted)
    np.testing.assert_array_equal(got[~finite], wanted[~finite])
    np.testing.assert_array_equal(np.signbit(got[finite]), np.signbit(wanted[finite]))
    spacing = np.spacing(np.maximum(np.abs(wanted[finite]), np.float32(2.0**-126)))
    away = np.abs(got[finite].astype(np.float64) - exact[finite]) / spacing
    assert away.max() <= ULPS, (x[finite][away.argmax()], away.max())


def bases() -> Array:
    patterns = np.arange(0, 2**32, 29_989, dtype=np.uint64).astype(np.uint32).view(np.float32)
    with np.errstate(all="ignore"):
        return np.concatenate([patterns, np.linspace(-3, 3, 30_001), SPECIAL]).astype(np.float32)


@pytest.mark.parametrize("exponent", EXPONENTS)
def test_known_exponents(exponent: float) -> None:
    x = bases()
    got = run(lambda v: tirx.pow(v, tirx.const(exponent, "float32")), x)
    check(got, x, np.float32(exponent))


@pytest.mark.parametrize("base", [2.0, 10.0, 0.3, 1.0, 0.0, -2.0, math.inf])
def test_known_bases(base: float) -> None:
    y = bases()
    got = run(lambda v: tirx.pow(tirx.const(base, "float32"), v), y)
    check(got, np.full_like(y, base), y)


def test_bases_and_exponents() -> None:
    draw = np.random.default_rng(0)
    x = np.exp(draw.uniform(-20, 20, 100_000)) * draw.choice([-1, 1], 100_000)
    y = np.where(
        draw.random(100_000) < 0.3, draw.integers(-9, 9, 100_000), draw.normal(0, 3, 100_000)
    )
    edges = np.array(SPECIAL)
    x = np.concatenate([x, np.repeat(edges, len(edges))]).astype(np.float32)
    y = np.concatenate([y, np.tile(edges, len(edges))]).astype(np.float32)
    check(run(tirx.pow, x, y), x, y)


def test_float16_is_computed_in_float32() -> None:
    x = np.linspace(0.1, 9, 640).astype(np.float16)
    got = run(lambda v: tirx.pow(v, tirx.const(1.7, "float16")), x)
    wanted = np.power(x.astype(np.float64), float(np.float16(1.7)))
    np.testing.assert_allclose(got.astype(np.float64), wanted, rtol=1e-3)


def test_no_call_of_the_library_is_left() -> None:
    for operands, function in (
        (1, lambda v: tirx.pow(v, tirx.const(0.75, "float32"))),
        (2, tirx.pow),
    ):
        made = compiled(function, 4096, operands, "float32")
        source = made.mod.inspect_source("asm") if hasattr(made, "mod") else ""
        assert source
        assert not re.search(r"\bpowf?\b", source)


def test_powers_within_a_logarithm() -> None:
    x, y = (np.random.default_rng(seed).uniform(-9, 9, 37).astype(np.float32) for seed in (0, 1))
    two = tirx.const(2.0, "float32")
    got = run(lambda a, b: tirx.log(tirx.pow(two, a) + tirx.pow(two, b)), x, y)
    wanted = np.log(2.0 ** x.astype(np.float64) + 2.0 ** y.astype(np.float64))
    np.testing.assert_allclose(got, wanted, 1e-6, 1e-6)
