"""Products by Hopper's warpgroups: what they read, by the PTX manual, and what comes out."""

import ctypes
import shutil
import subprocess
from math import prod
from pathlib import Path
from typing import Any

import pytest
from cuda_emulator import needs_compiler, run, source_of
from cuda_kernels import check, close, convolution, feed, gpu, product, reference
from kernel_builders import Builder

from hybridc.compiler import pipeline, plugin
from hybridc.compiler.cuda import resources, toolchain, wgmma
from hybridc.compiler.interfaces import NotApplicable
from hybridc.schedules.cuda import tiles, warpgroups

RULE = {plugin.name_of(type(rule)): rule for rule in pipeline.rules(device="cuda")}[
    "cuda-wgmma-matmul"
]


CASES: dict[str, Builder] = {
    "by depth": product([70, 136], [136, 72], "float16"),
    "batches": product([2, 64, 64], [2, 64, 128], "bfloat16"),
    "odd": product([50, 75], [75, 51], "float16"),
    "convolution": convolution([1, 9, 9, 32], [72, 3, 3, 32], "bfloat16", padding=(1, 1)),
}
# Points beside the default: every width of the instruction, several warpgroups, a divided depth.
POINTS = (
    {"rows": 128, "columns": 256, "stages": 2, "splits": 1},
    {"rows": 64, "columns": 128, "stages": 3, "splits": 2},
    {"rows": 64, "columns": 64, "stages": 4, "splits": 1},
    {"rows": 192, "columns": 192, "stages": 3, "splits": 1},
)


def at(func: Any, knobs: Any, device: Any, order: int = 0) -> None:
    """The kernel at a point computes what the unscheduled one does."""
    match: Any = RULE.match(func, device)
    point = RULE.canonical(match, {**RULE.default(match, device), **knobs})
    assert RULE.canonical(match, point) == point
    assert point["warp_columns"] == point["columns"]
    arrays = feed(func)
    made = RULE.schedule(match, point).mod["main"]
    for got, right in zip(run(made, arrays, device, order), reference(func, arrays), strict=True):
        close(got, right, 1e-5, f"{point}")


@needs_compiler
@pytest.mark.parametrize("name", ["by depth", "convolution"])
def test_products_are_those_of_the_unscheduled_kernel(name: str) -> None:
    device = gpu("sm_90a")
    (func,) = CASES[name](device)
    at(func, {}, device)


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_products_at_many_points(name: str) -> None:
    device = gpu("sm_90a")
    (func,) = CASES[name](device)
    assert check(RULE, func, device, points=1)
    for point in POINTS:
        at(func, point, device, order=2)


@needs_compiler
def test_what_no_fence_lets_be_seen_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies go one way to shared memory, and `wgmma` reads it another way."""
    monkeypatch.setattr(warpgroups.WarpGroups, "arrived", lambda _: [])
    device = gpu("sm_90a")
    (func,) = CASES["by depth"](device)
    with pytest.raises(AssertionError, match="an asynchronous read of what no fence let it see"):
        at(func, {}, device)


@needs_compiler
@pytest.mark.parametrize(
    ("waits", "said"),
    [
        (lambda behind: behind == 0, "under way is touched|race|Not equal to tolerance"),
        (lambda behind: behind > 0, "a product is not waited for"),
    ],
)
def test_tiles_that_are_overwritten_and_sums_that_are_read_too_early_are_told(
    waits: Any, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = warpgroups.WarpGroups.awaited

    def awaited(self: Any, warp: Any, registers: Any, behind: int) -> Any:
        return plain(self, warp, registers, behind) if waits(behind) else []

    monkeypatch.setattr(warpgroups.WarpGroups, "awaited", awaited)
    device = gpu("sm_90a")
    (func,) = product([64, 512], [512, 64], "float16")(device)
    with pytest.raises(AssertionError, match=said):
        at(func, {"rows": 64, "columns": 64, "stages": 3, "splits": 1}, device)


@needs_compiler
@pytest.mark.parametrize("stages", [2, 3, 5])
def test_products_are_under_way_while_the_next_tiles_are_copied(stages: int) -> None:
    device = gpu("sm_90a")
    (func,) = product([64, 512], [512, 64], "float16")(device)
    at(func, {"rows": 64, "columns": 64, "stages": stages, "splits": 1}, device, order=1)


@pytest.mark.parametrize("arch", ["sm_80", "sm_90", "sm_100"])
def test_other_architectures_have_no_warpgroups(arch: str) -> None:
    device = gpu(arch)
    (func,) = CASES["by depth"](device)
    assert isinstance(RULE.match(func, device), NotApplicable)


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not installed")
@pytest.mark.parametrize("columns", [64, 192, 256])
def test_the_assembler_takes_every_width_without_spills(columns: int) -> None:
    device = gpu("sm_90a")
    (func,) = product([512, 512], [512, 1024], "bfloat16")(device)
    match: Any = RULE.match(func, device)
    point = RULE.canonical(match, {**RULE.default(match, device), "columns": columns})
    source, _ = source_of(RULE.schedule(match, point).mod["main"], device)
    assert "__align__(1024)" in source
    log = toolchain.find().compile(source, "sm_90a").log
    assert "serializ" not in log
    assert all(usage.spilled == 0 for usage in resources.read_log(log).values())


@pytest.mark.parametrize(
    "shape", [(4096, 2304, 768), (4096, 768, 3072), (6304, 768, 768), (6272, 1024, 256)]
)
def test_tiles_are_as_many_as_multiprocessors_have_turns(shape: tuple[int, int, int]) -> None:
    """Of BERT, ViT and ResNet-50 at batch 32: hardly a multiprocessor waits for the last tiles."""
    rows, columns, depth = shape
    device = gpu("nvidia/h100")
    (func,) = product([rows, depth], [depth, columns], "float16")(device)
    match: Any = RULE.match(func, device)
    cutting = tiles.tiling(RULE.default(match, device))
    blocks, sms = prod(cutting.blocks(match.product)), device.device.sms
    assert blocks / (-(-blocks // sms) * sms) > 0.9


_DESCRIBED = """
#include <cstdint>
#define __CUDA_ARCH_FEAT_SM90_ALL
#define HYBRIDC_INLINE static inline
static unsigned hybridc_shared(const void* tile) { return reinterpret_cast<std::uintptr_t>(tile); }
HEAD
#endif
extern "C" unsigned long long along(unsigned tile, int step) {
  return hybridc_descriptor<0>(reinterpret_cast<void*>(std::uintptr_t(tile)), step);
}
extern "C" unsigned long long by_depth(unsigned tile, int step) {
  return hybridc_descriptor<1>(reinterpret_cast<void*>(std::uintptr_t(tile)), step);
}
"""


@needs_compiler
@pytest.mark.parametrize("rank", [0, 1, 7])
def test_descriptors_of_tiles_are_the_same_in_each_block_of_a_cluster(
    rank: int, tmp_path: Path
) -> None:
    """On Hopper an address in shared memory tells the block's rank from bit 24 on."""
    (tmp_path / "d.cpp").write_text(_DESCRIBED.replace("HEAD", wgmma.HEAD))
    command = [
        "g++",
        "-w",
        "-shared",
        "-fPIC",
        "-o",
        str(tmp_path / "d.so"),
        str(tmp_path / "d.cpp"),
    ]
    subprocess.run(command, check=True)
    library, tile = ctypes.CDLL(str(tmp_path / "d.so")), 0x2400
    for name, leading, stride in (("along", 1, 32), ("by_depth", 8192 >> 4, 2048)):
        made = getattr(library, name)
        made.restype = ctypes.c_uint64
        for step in range(4):
            found = made(rank << 24 | tile, step)
            assert found & 0x3FFF == (tile + step * stride) >> 4
            assert found >> 14 == (leading << 16 | 1024 >> 4 << 32 | 1 << 62) >> 14
