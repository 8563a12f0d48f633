"""Rows that lie in the registers of a GPU's threads: read once, in vectors, by warps or blocks."""

from typing import Any

import pytest
from cuda_emulator import needs_compiler, source_of
from cuda_kernels import check, gpu, halves
from kernel_builders import Builder, floats, op, operator

from hybridc.compiler import pipeline, plugin
from hybridc.schedules.cuda import rows

RULES = {plugin.name_of(type(rule)): rule for rule in pipeline.rules(device="cuda")}


def _norm(x: Any, scale: Any, shift: Any) -> Any:
    return op.astype(op.nn.layer_norm(x, scale, shift, [-1]), "float16")


def _softmax(x: Any) -> Any:
    return op.nn.softmax(x, -1)


# The kernel, its rule, and elements of a vector.
HELD: dict[str, tuple[Builder, str, int]] = {
    "a warp": (operator(_norm, *floats([5, 256], [256], [256])), "cuda-layer-norm", 4),
    "some warps": (operator(_softmax, *floats([3, 4104])), "cuda-softmax", 4),
    "a tail": (operator(_norm, *floats([4, 100], [100], [100])), "cuda-layer-norm", 4),
    "no vectors": (operator(_softmax, *floats([6, 197])), "cuda-softmax", 1),
    "16 bits": (operator(_norm, *halves([4, 512], [512], [512])), "cuda-layer-norm", 8),
    "two axes": (
        operator(
            lambda x, s, t: op.nn.layer_norm(x, s, t, [-2, -1]),
            *floats([6, 5, 8], [5, 8], [5, 8]),
        ),
        "cuda-layer-norm",
        4,
    ),
    "one number": (operator(op.sum, *floats([4, 400])), "cuda-reduction", 4),
    "the largest": (operator(lambda x: op.max(x, [-1]), *halves([6, 264])), "cuda-reduction", 8),
}


@needs_compiler
@pytest.mark.parametrize("name", HELD)
def test_rows_in_registers_are_those_of_the_unscheduled_kernel(name: str) -> None:
    builder, rule, width = HELD[name]
    device = gpu()
    (func,) = builder(device)
    match: Any = RULES[rule].match(func, device)
    assert match.form.width == width
    assert RULES[rule].default(match, device)["keep"] == rows.space(match)["keep"][-1]
    assert check(RULES[rule], func, device, points=0)


def test_each_element_is_read_once() -> None:
    """768 elements of a row over 32 lanes, 16 bytes each: six accesses, and as many of weights."""
    device = gpu()
    (func,) = operator(_norm, *floats([128, 768], [768], [768]))(device)
    rule = RULES["cuda-layer-norm"]
    match: Any = rule.match(func, device)
    source, (launch,) = source_of(
        rule.schedule(match, rule.default(match, device)).mod["main"], device
    )
    kernel = source[source.index('extern "C"') :]
    assert (launch.block_size, launch.shared) == (32, 0)
    assert kernel.count("hybridc_vector<float, 4>") == 3 * 6
    assert kernel.count("hybridc_vector<half, 4>") == 6


def test_a_row_too_long_for_registers_is_read_again() -> None:
    device = gpu()
    (func,) = operator(_softmax, *floats([2, 100_000]))(device)
    match: Any = RULES["cuda-softmax"].match(func, device)
    assert RULES["cuda-softmax"].default(match, device)["keep"] == 0
