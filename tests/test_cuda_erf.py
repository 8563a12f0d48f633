"""1 + erf on a GPU, as GELU has it: its error, and that models reach it."""

from typing import Any

import numpy as np
import pytest
from cuda_emulator import needs_compiler, run, source_of
from cuda_kernels import gpu
from cuda_models import answers, scheduled, transformer
from scipy import special
from tvm import te, tirx

from hybridc.compiler import frontend
from hybridc.compiler.configuration import plans
from hybridc.compiler.interfaces import Context
from hybridc.compiler.model import Array
from hybridc.passes.fast_math import FastMath
from hybridc.schedules.cuda_elementwise import CudaElementwise

EDGES = [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 3.4e38, -3.4e38, 4.0, -4.0, 1e20]


def computed(factor: float, shift: float, x: Array) -> tuple[Array, str]:
    """`shift + factor erf(x)` as a GPU computes it, and the source of its kernel."""
    place = te.placeholder(x.shape, "float32", "x")
    made = te.compute(
        x.shape,
        lambda i: tirx.const(shift, "float32") + tirx.erf(place[i]) * tirx.const(factor, "float32"),
    )
    func, device, rule = te.create_prim_func([place, made]), gpu(), CudaElementwise()
    match: Any = rule.match(func, device)
    scheduled = rule.schedule(match, rule.default(match, device)).mod
    module = FastMath().apply(scheduled, Context(device, (rule,)))
    kernel = source_of(module["main"], device)[0].rpartition('extern "C"')[2]
    return run(module["main"], [x, np.zeros_like(x)], device)[-1], kernel


def exact(x: Array) -> Array:
    """1 + erf in float64, without cancellation."""
    with np.errstate(invalid="ignore"):
        wide: Array = special.erfc(-x.astype(np.float64))
    return wide


@needs_compiler
@pytest.mark.parametrize("factor", [1.0, 0.5])
def test_all_of_it_is_right_to_two_units(factor: float) -> None:
    """Beside 1: the emulator's power of 2 is exact, a GPU's is off by two units at most."""
    sweep = np.linspace(-8, 8, 200_003).astype(np.float32)
    patterns = np.arange(0, 2**32, 99_991, dtype=np.uint64).astype(np.uint32).view(np.float32)
    x = np.concatenate([sweep, patterns, np.array(EDGES, np.float32)])
    got, kernel = computed(factor, factor, x)
    assert "hybridc_plus_erf" in kernel
    wanted = factor * exact(x)
    assert np.array_equal(np.isnan(got), np.isnan(wanted))
    unit = np.spacing(np.maximum(np.abs(wanted), factor).astype(np.float32))
    assert np.nanmax(np.abs(got - wanted) / unit) < 1.5
    # Where it is small, so is its error: the tail of a GELU keeps its digits.
    tail = (x > -3) & (x < 0)
    assert np.max(np.abs(got[tail] / wanted[tail] - 1)) < 1e-3


@needs_compiler
def test_other_sums_stay() -> None:
    x = np.linspace(-2, 2, 64).astype(np.float32)
    for factor, shift in ((1.0, 0.5), (0.25, 0.25), (-1.0, 1.0)):
        got, kernel = computed(factor, shift, x)
        assert "hybridc_plus_erf" not in kernel
        np.testing.assert_allclose(got, shift + factor * special.erf(x), atol=1e-6)


@needs_compiler
def test_the_gelu_of_a_model_is_computed_so() -> None:
    options = plans.Options(target="sm_90a")
    model = frontend.load(transformer(), shapes={}, fallback=False)
    module, _ = scheduled(model, options)
    assert "plus_erf<1>" in module.script()
    assert "T.erf" not in module.script()
    got, wanted = answers(transformer(), options)
    np.testing.assert_allclose(got[0], wanted[0], rtol=0, atol=1e-5 * np.abs(wanted[0]).max())
