"""Targets that are GPUs: names, limits, the driver's answers, compilers, and the rules asked."""

import ctypes
import shutil
from pathlib import Path

import pytest

from hybridc.compiler import pipeline, target
from hybridc.compiler.configuration import plans
from hybridc.compiler.cuda import driver, gpu, nvrtc, resources, toolchain
from hybridc.compiler.cuda.resources import Launch, Usage, occupancy
from hybridc.compiler.errors import InputError, PassError
from hybridc.compiler.interfaces import ScheduleRule
from hybridc.compiler.orchestration import precisions


@pytest.fixture
def no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host without NVIDIA's driver, whatever this one has."""

    def missing(_: str) -> None:
        raise OSError

    driver.loaded.cache_clear()
    monkeypatch.setattr(ctypes, "CDLL", missing)


@pytest.mark.parametrize(
    ("name", "arch", "sms", "feature"),
    [
        ("nvidia/h100", "sm_90a", 132, "wgmma"),
        ("nvidia/a100", "sm_80", 108, "cp.async"),
        ("sm_90", "sm_90", 132, "cp.async"),
        ("sm_75", "sm_75", 40, "ldmatrix"),
        ("sm_89", "sm_89", 58, "mma.bf16"),
    ],
)
def test_gpus_are_named_by_board_or_architecture(
    name: str, arch: str, sms: int, feature: str
) -> None:
    made = target.parse(name)
    assert (made.kind, made.device.arch, made.device.sms) == ("cuda", arch, sms)
    assert feature in made.device.features
    assert str(made.tvm.kind) == "cuda"
    assert str(made.tvm.host.attrs["mcpu"]) == "x86-64-v3"
    assert made.describe()["gpu"]["arch"] == arch


def test_the_instructions_of_one_architecture_need_its_suffix() -> None:
    assert "wgmma" not in target.parse("sm_90").device.features
    assert "cp.async" not in target.parse("sm_75").device.features


@pytest.mark.parametrize(
    ("name", "near"), [("nvidia/h10", "nvidia/h100"), ("sm_91", "sm_90"), ("cudo", "cuda")]
)
def test_an_unknown_gpu_is_an_error_with_the_nearest_name(name: str, near: str) -> None:
    with pytest.raises(InputError, match=f"did you mean '{near}"):
        target.parse(name)


@pytest.mark.usefixtures("no_driver")
def test_without_a_driver_target_cuda_is_one_clear_line() -> None:
    with pytest.raises(InputError, match=r"has no NVIDIA driver .*name it: nvidia/h100") as raised:
        target.parse("cuda")
    assert raised.value.exit_code == 2
    assert "\n" not in str(raised.value)


# What the driver says of an A100, by the names of its attributes.
A100 = {
    "clock_khz": 1_410_000,
    "sms": 108,
    "memory_khz": 1_215_000,
    "bus_bits": 5120,
    "l2": 40 * 2**20,
    "threads_per_sm": 2048,
    "major": 8,
    "minor": 0,
    "shared_per_sm": 164 * 2**10,
    "shared_per_block": 163 * 2**10,
    "blocks_per_sm": 32,
}


def test_a_gpu_that_the_table_knows_gets_its_peaks() -> None:
    known = target.parse("nvidia/a100").device
    found = driver.described("NVIDIA A100-SXM4-40GB", A100)
    assert (found.arch, found.sms, found.half) == ("sm_80", 108, known.half)
    assert found.shared_per_block == known.shared_per_block


def test_a_gpu_that_the_table_does_not_know_gets_them_by_its_clock() -> None:
    found = driver.described("NVIDIA Something", A100)
    assert found.fp32 == pytest.approx(19.5e12, rel=0.01)
    assert found.bandwidth == pytest.approx(1555e9, rel=0.01)
    assert found.clock == pytest.approx(1.41e9)


def test_a_gpu_that_is_too_old_is_refused() -> None:
    with pytest.raises(driver.NoGpuError, match=r"compute capability 6\.1; 7\.5 is the least"):
        driver.described("GeForce GTX 1080", {**A100, "major": 6, "minor": 1})


@pytest.mark.parametrize(
    ("arch", "capability", "runs"),
    [
        ("sm_80", 80, True),
        ("sm_80", 86, True),
        ("sm_86", 80, False),
        ("sm_80", 90, False),
        ("sm_90a", 90, True),
        ("sm_90", 90, True),
        ("sm_90a", 100, False),
    ],
)
def test_machine_code_runs_on_later_gpus_of_its_major_version(
    arch: str, capability: int, runs: bool
) -> None:
    assert gpu.runs_on(arch, capability) is runs


# From NVIDIA's occupancy calculator, for compute capability 8.0.
@pytest.mark.parametrize(
    ("threads", "registers", "shared", "wanted"),
    [(256, 32, 0, 1.0), (256, 64, 0, 0.5), (128, 32, 48 * 2**10, 0.1875), (1024, 65, 0, 0.0)],
)
def test_occupancy_is_that_of_the_calculator(
    threads: int, registers: int, shared: int, wanted: float
) -> None:
    a100 = target.parse("sm_80").device
    assert occupancy(threads, registers, shared, a100) == wanted


def test_what_breaks_a_limit_is_named() -> None:
    h100 = target.parse("nvidia/h100").device
    assert not Launch("k", (1, 1, 1), (1024, 1, 1), 227 * 2**10).faults(h100)
    found = Launch("k", (1, 70_000, 1), (64, 32, 1), 300_000).faults(h100)
    assert [fault.partition(",")[0] for fault in found] == [
        "2048 threads in a block",
        "300000 bytes of shared memory in a block",
        "70000 blocks along y",
    ]


def test_the_log_of_ptxas_is_read() -> None:
    log = """ptxas info    : Compiling entry function 'add_kernel' for 'sm_80'
ptxas info    : Function properties for add_kernel
    8 bytes stack frame, 4 bytes spill stores, 4 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 1024 bytes smem, 380 bytes cmem[0]
ptxas info    : Compiling entry function 'mul_kernel' for 'sm_80'
ptxas info    : Used 12 registers, 380 bytes cmem[0]
"""
    assert resources.read_log(log) == {
        "add_kernel": Usage(registers=40, spilled=4, shared=1024),
        "mul_kernel": Usage(registers=12, spilled=0, shared=0),
    }


def test_rules_state_the_device_that_they_serve() -> None:
    cpu, cuda = pipeline.rules(), pipeline.rules(device="cuda")
    assert {type(rule).device for rule in cpu} == {"cpu"}
    assert {type(rule).device for rule in cuda} == {"cuda"}
    priorities = [type(rule).priority for rule in cuda]
    assert len(set(priorities)) == len(priorities)
    assert ScheduleRule.device == "cpu"


def test_a_gpu_has_a_pipeline_and_precisions_of_its_own() -> None:
    plan = plans.plan(plans.Options(target="sm_90", dtype="tf32"))
    names = [type(step).__name__ for step in plan.steps]
    assert "PackWeights" not in names
    assert names.index("TensorFloat") == names.index("Fuse") + 1
    assert {type(rule).device for rule in plan.rules} == {"cuda"}
    plan = plans.plan(plans.Options(target="sm_90", dtype="int8-weights"))
    names = [type(step).__name__ for step in plan.steps]
    assert names.index("QuantizeWeights") < names.index("WidenTypes")
    pair = plans.plan(plans.Options(target="sm_90", dtype="fp16+int4-weights"))
    names = [type(step).__name__ for step in pair.steps]
    assert names.index("QuantizeWeights") < names.index("MixedPrecision") < names.index("Fuse")
    with pytest.raises(InputError, match="dtype tf32 is not available for target kind cpu"):
        plans.plan(plans.Options(dtype="tf32"))


@pytest.mark.parametrize("dtype", [*precisions.CUDA_PRECISIONS, *precisions.PAIRS])
def test_the_steps_of_a_gpu_tell_their_precision(dtype: str) -> None:
    plan = plans.plan(plans.Options(target="sm_90", dtype=dtype))
    assert precisions.of_steps(plan.steps) == dtype


def test_without_a_compiler_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setattr(toolchain, "_find_nvrtc", lambda: (None, ()))
    monkeypatch.delenv("CUDA_HOME", raising=False)
    monkeypatch.delenv("CUDA_PATH", raising=False)
    with pytest.raises(InputError, match=r"no compiler for CUDA.*hybridc\[cuda\]"):
        toolchain.find()


def test_the_toolkit_of_cuda_home_goes_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "nvcc").write_text("")
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    assert toolchain.find().path == tmp_path / "bin" / "nvcc"


NVCC = pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not installed")


@NVCC
def test_nvcc_names_the_error_of_a_source() -> None:
    with pytest.raises(PassError, match=r"nvcc refuses the kernels for sm_80: .*undefined_name"):
        toolchain.find().compile('extern "C" __global__ void k() { undefined_name(); }', "sm_80")


def test_a_library_that_is_no_nvrtc_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "libnvrtc.so.13").write_text("no library")
    with pytest.raises(InputError, match="NVRTC cannot be loaded"):
        nvrtc.version(tmp_path / "libnvrtc.so.13")
