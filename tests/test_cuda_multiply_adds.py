"""Products of float32 on CUDA cores, of sides that lie by depth or not, whatever their sizes."""

import re
from typing import Any

import pytest
from cuda_emulator import ORDERS, needs_compiler, run, source_of
from cuda_kernels import check, close, convolution, feed, gpu, product, reference
from kernel_builders import Builder, floats, op, operator

from hybridc.compiler import pipeline, plugin
from hybridc.compiler.cuda.resources import occupancy
from hybridc.schedules.cuda import tiles

RULE = next(
    rule for rule in pipeline.rules(device="cuda") if plugin.name_of(type(rule)) == "cuda-matmul"
)
NEITHER, LEFT, RIGHT, BOTH = (False, False), (True, False), (False, True), (True, True)
BOUNDS = r"__launch_bounds__\((\d+), (\d+)\)"  # threads of a block, blocks
KNOBS = ("rows", "columns", "warp_rows", "warp_columns", "stages", "splits")


def sums(subscripts: str, left: Any, right: Any) -> Builder:
    """A product whose sides lie as `einsum` says."""
    return operator(lambda x, y: op.einsum((x, y), subscripts), *floats(left, right))


# Which sides lie by depth in shared memory.  Whole tiles along the depth tell of its last step.
PRODUCTS: dict[str, tuple[Builder, tuple[bool, bool]]] = {
    "right by depth": (product([70, 64], [64, 68]), RIGHT),
    "neither by depth": (sums("mk,nk->mn", [70, 64], [66, 64]), NEITHER),
    "both by depth": (sums("km,kn->mn", [64, 72], [64, 68]), BOTH),
    "left by depth": (sums("km,nk->mn", [64, 72], [68, 64]), LEFT),
    "left by depth, odd": (sums("km,nk->mn", [65, 77], [70, 65]), LEFT),
    "both by depth, odd": (sums("km,kn->mn", [33, 35], [33, 51]), BOTH),
    "batches, odd": (product([2, 37, 45], [2, 45, 51]), RIGHT),
    "convolution": (convolution([1, 9, 9, 32], [24, 3, 3, 32], padding=(1, 1)), NEITHER),
}
AT_DEFAULTS = ["left by depth, odd", "batches, odd", "convolution"]
# A warp of 64 rows has eight rows of lanes, not four.
LANES = {
    "right by depth": (64, 64, 64, 32, 3, 1),
    "neither by depth": (64, 32, 64, 32, 2, 1),
    "both by depth": (128, 64, 64, 64, 2, 1),
    "left by depth": (64, 64, 32, 64, 4, 1),
}


def matched(name: str, arch: str = "sm_90a") -> tuple[Any, Any, Any]:
    """A product, its match and the GPU."""
    device = gpu(arch)
    (func,) = PRODUCTS[name][0](device)
    match: Any = RULE.match(func, device)
    return func, match, device


def held_at(func: Any, match: Any, device: Any, point: tuple[int, ...]) -> None:
    """What the kernel computes at a point is what the unscheduled one does, without a race."""
    canonical = RULE.canonical(match, dict(zip(KNOBS, point, strict=True)))
    assert tuple(canonical[knob] for knob in KNOBS) == point
    arrays = feed(func)
    wanted = reference(func, arrays)
    made = RULE.schedule(match, canonical).mod["main"]
    for order in ORDERS:
        for got, right in zip(run(made, arrays, device, order), wanted, strict=True):
            close(got, right, 1e-5, f"{point}, threads in order {order}")


@pytest.mark.parametrize("name", PRODUCTS)
def test_what_is_contiguous_along_its_own_axis_lies_by_depth(name: str) -> None:
    _, match, _ = matched(name)
    assert (match.compute.left_by_depth, match.compute.right_by_depth) == PRODUCTS[name][1]


@needs_compiler
@pytest.mark.parametrize("name", AT_DEFAULTS)
def test_products_at_their_defaults(name: str) -> None:
    func, _, device = matched(name)
    assert check(RULE, func, device, points=0)


@needs_compiler
@pytest.mark.parametrize("name", LANES)
def test_products_with_other_lanes(name: str) -> None:
    held_at(*matched(name, "sm_80"), LANES[name])


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("arch", ["sm_75", "sm_80", "sm_90a"])
@pytest.mark.parametrize("name", PRODUCTS)
def test_products_at_many_points(name: str, arch: str) -> None:
    func, _, device = matched(name, arch)
    assert check(RULE, func, device, points=6)


@needs_compiler
def test_a_block_that_has_no_part_of_the_depth_adds_nothing() -> None:
    """Nine tiles along the depth are three for each of three blocks, and none for the fourth."""
    device = gpu()
    (func,) = product([32, 288], [288, 32])(device)
    held_at(func, RULE.match(func, device), device, (32, 32, 16, 32, 2, 4))


def test_registers_are_left_for_the_blocks_that_there_is_room_for() -> None:
    """Where all is copied in whole pieces; what else a thread holds there is not known as well."""
    for arch in ("sm_75", "sm_90a"):
        _, match, device = matched("neither by depth", arch)
        point = RULE.canonical(match, RULE.default(match, device))
        source, _ = source_of(RULE.schedule(match, point).mod["main"], device)
        bounds = [tuple(map(int, found)) for found in re.findall(BOUNDS, source)]
        tiling, registers = tiles.tiling(point), tiles.registers(match, point)
        used = occupancy(tiling.threads, registers, tiling.shared, device.device)
        blocks = round(used * device.device.threads_per_sm / tiling.threads)
        assert blocks > 1
        assert (tiling.threads, blocks) in bounds
    _, match, device = matched("convolution")
    source, _ = source_of(RULE.schedule(match, RULE.default(match, device)).mod["main"], device)
    assert {blocks for _, blocks in re.findall(BOUNDS, source)} == {"1"}
