"""What ptxas gives kernels is what our analysis had reckoned with before anything was built."""

import re
import shutil
from dataclasses import dataclass
from typing import Any

import pytest
from cuda_emulator import source_of
from cuda_kernels import convolution, gpu, product
from kernel_builders import Builder
from test_cuda_attention import attention
from test_cuda_multiply_adds import BOUNDS, sums
from test_cuda_products import bytes_product

from hybridc.compiler import pipeline, plugin
from hybridc.compiler.cuda import resources, toolchain
from hybridc.compiler.cuda.resources import occupancy
from hybridc.compiler.interfaces import NotApplicable
from hybridc.schedules.cuda import tiles
from hybridc.schedules.cuda.attention_cut import Cut

pytestmark = pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not installed")
RULES = pipeline.rules(device="cuda")
KERNELS: dict[str, Builder] = {
    "fp16 product": product([4096, 1024], [1024, 4096], "float16"),
    "bf16 product of few rows": product([128, 768], [768, 768], "bfloat16"),
    "fp32 product": product([1024, 512], [512, 1024]),
    "fp32 product of few rows": sums("mk,nk->mn", [128, 768], [768, 768]),
    "fp32 product, left by depth": sums("km,nk->mn", [512, 1024], [1024, 512]),
    "fp32 product, both by depth": sums("km,kn->mn", [512, 1024], [512, 1024]),
    "fp32 product, odd": product([333, 77], [77, 501]),
    "fp32 convolution": convolution([8, 56, 56, 64], [64, 3, 3, 64], padding=(1, 1)),
    "product of bytes": bytes_product([1024, 512], [512, 1024]),
    "fp16 convolution": convolution([8, 56, 56, 64], [64, 3, 3, 64], "float16", padding=(1, 1)),
    "fp16 attention": attention((12, 12), (512, 512, 64, 64)),
    "fp16 attention of widest heads": attention((8, 8), (512, 512, 256, 256)),
    "causal bf16 attention": attention((8, 8), (512, 512, 128, 128), "causal", "bfloat16"),
    "tf32 attention": attention((12, 12), (512, 512, 64, 64), None, "tf32"),
    "tf32 attention of widest heads": attention((8, 8), (512, 512, 256, 256), None, "tf32"),
    "fp32 attention": attention((12, 12), (512, 512, 64, 64), None, "float32"),
    "fp32 attention of wide heads": attention((8, 8), (512, 512, 128, 128), None, "float32"),
    "fp32 attention of widest heads": attention((8, 8), (128, 512, 256, 256), None, "float32"),
}
QUICK = {"fp16 product", "fp32 attention", "fp32 product of few rows"}


@dataclass(frozen=True)
class Expected:
    """What the analysis says of a block: threads, registers of a thread, bytes of shared memory."""

    threads: int
    registers: int
    shared: int


def expected(rule: Any, match: Any, point: Any) -> Expected:
    """What a rule reckons with at a canonical point."""
    if plugin.name_of(type(rule)) == "cuda-attention":
        cut = Cut.of(match, point)
        return Expected(cut.threads, cut.registers, cut.shared)
    tiling = tiles.tiling(point)
    return Expected(tiling.threads, tiles.registers(match, point), tiling.shared)


@pytest.mark.parametrize("arch", ["sm_80", "sm_90a"])
@pytest.mark.parametrize(
    "name",
    [pytest.param(each, marks=() if each in QUICK else pytest.mark.slow) for each in KERNELS],
)
def test_registers_and_shared_memory_are_as_analysed(name: str, arch: str) -> None:
    held(name, arch)


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["sm_75", "sm_120"])
@pytest.mark.parametrize(
    "name", [name for name in KERNELS if name.startswith(("fp32 product", "fp32 convolution"))]
)
def test_so_are_those_of_gpus_with_little_shared_memory(name: str, arch: str) -> None:
    held(name, arch)


def held(name: str, arch: str) -> None:
    """What ptxas says of a kernel at its default."""
    device = gpu(arch)
    (func,) = KERNELS[name](device)
    rule = next(r for r in RULES if not isinstance(r.match(func, device), NotApplicable))
    match: Any = rule.match(func, device)
    point = rule.canonical(match, rule.default(match, device))
    wanted = expected(rule, match, point)
    source, launches = source_of(rule.schedule(match, point).mod["main"], device)
    usages = resources.read_log(toolchain.find().compile(source, arch).log)
    first = launches[0]
    used = usages[first.kernel]
    assert (first.block_size, first.shared) == (wanted.threads, wanted.shared)
    assert first.faults(device.device) == ()
    assert all(each.spilled == 0 for each in usages.values())
    assert used.shared <= first.shared, "dynamic shared memory alone"
    # As many blocks are resident as the model has reckoned with, or more.
    reckoned = occupancy(wanted.threads, wanted.registers, wanted.shared, device.device)
    reached = occupancy(wanted.threads, used.registers, wanted.shared, device.device)
    assert reached >= reckoned, (used.registers, wanted.registers)
    # And as many as the kernel asks ptxas to leave registers for.
    asked = re.findall(rf"{BOUNDS} {first.kernel}\(", source)[-1]
    threads, blocks = map(int, asked)
    assert threads * blocks * used.registers <= device.device.registers_per_sm
