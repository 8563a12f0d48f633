"""What products read behind their sums: several vectors at a time, before sums are there."""

import re
from typing import Any

import pytest
from cuda_emulator import needs_compiler, run, source_of
from cuda_kernels import close, feed, gpu, reference
from kernel_builders import Builder, op, operator

from hybridc.compiler import pipeline, plugin

RULES = {plugin.name_of(type(rule)): rule for rule in pipeline.rules(device="cuda")}


def product(rows: int, columns: int, *others: tuple[list[int], str], gelu: bool = False) -> Builder:
    """A product of 16 bits to which other tensors are added, one after another."""

    def build(x: Any, w: Any, *added: Any) -> Any:
        total = op.matmul(x, w, out_dtype="float32")
        for each in added:
            total = op.add(total, op.astype(each, "float32"))
        return op.astype(op.nn.gelu(total), "float16") if gelu else total

    return operator(build, ([rows, 64], "float16"), ([64, columns], "float16"), *others)


# A kernel, its rule and point; vectors of a thread, and how many of them are read together.
Case = tuple[Builder, str, dict[str, int], int, int]
_WGMMA, _TILES = "cuda-wgmma-matmul", "cuda-tensor-matmul"
_SQUARE = {"rows": 128, "columns": 128, "stages": 2, "splits": 1}
CASES: dict[str, Case] = {
    "a residual behind the last row and column": (
        product(150, 200, ([150, 200], "float32")),
        _WGMMA,
        _SQUARE,
        16,
        8,
    ),
    "two residuals and a bias": (
        product(128, 128, ([128], "float32"), ([128, 128], "float16"), ([128, 128], "float16")),
        _WGMMA,
        _SQUARE,
        16,
        8,
    ),
    "a number for each row": (
        product(64, 128, ([64, 1], "float32"), ([64, 128], "float32")),
        _TILES,
        {"rows": 64, "columns": 128, "warp_rows": 32, "warp_columns": 64},
        16,
        8,
    ),
    "threads of several columns": (
        product(64, 192, ([192], "float32"), ([64, 192], "float32")),
        _WGMMA,
        {"rows": 64, "columns": 192, "stages": 2, "splits": 1},
        24,
        4,
    ),
    "element by element": (
        product(64, 128, ([128], "float32"), ([64, 128], "float32"), gelu=True),
        _TILES,
        {"rows": 64, "columns": 128, "warp_rows": 32, "warp_columns": 64},
        16,
        8,
    ),
}


def kernel(case: Case) -> tuple[Any, Any]:
    """The loop nest, and what its rule makes of it at its point."""
    builder, name, knobs, *_ = case
    device, rule = gpu("sm_90a"), RULES[name]
    (func,) = builder(device)
    match: Any = rule.match(func, device)
    point = rule.canonical(match, {**rule.default(match, device), **knobs})
    assert {knob: point[knob] for knob in knobs} == knobs
    return func, rule.schedule(match, point).mod["main"]


@needs_compiler
@pytest.mark.parametrize("name", CASES)
def test_what_is_read_ahead_is_added(name: str) -> None:
    func, made = kernel(CASES[name])
    arrays = feed(func)
    for got, right in zip(run(made, arrays, gpu("sm_90a")), reference(func, arrays), strict=True):
        close(got, right, 1e-5, name)


@pytest.mark.parametrize("name", CASES)
def test_as_many_vectors_are_under_way_as_registers_hold(name: str) -> None:
    """They begin before threads wait for the sums of others."""
    _, made = kernel(CASES[name])
    *_, turns, together = CASES[name]
    text, _ = source_of(made, gpu("sm_90a"))
    text = text[text.index('extern "C" __global__') :]
    before, _, behind = text.rpartition("__syncthreads();")
    arrays = set(re.findall(r"&\(read_(\d+)_", before))
    assert len(arrays) == together
    groups = turns // together
    assert (f"out < {groups};" in behind) == (groups > 1)
