"""From a model to an artifact for a GPU that is not here; the answers by the emulator."""

import ctypes
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cuda_emulator import needs_compiler
from cuda_models import answers, records, residual_network, transformer

from hybridc.cli import main as entry
from hybridc.compiler import driver
from hybridc.compiler.artifacts.artifact import Artifact
from hybridc.compiler.assurance.contract import Contract
from hybridc.compiler.configuration import plans
from hybridc.compiler.cuda import driver as gpus
from hybridc.compiler.cuda import presence
from hybridc.compiler.errors import ArtifactError, InputError
from hybridc.compiler.runtime.session import InferenceSession

DIGITS = str(Path(__file__).parent.parent / "examples" / "digits" / "digits.onnx")
NVCC = pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not installed")
# Largest error as a share of the largest output.
SHARES = {
    **{"fp32": 1e-5, "tf32": 2e-3, "fp16": 2e-3, "bf16": 1.5e-2},
    **{"int8": 3e-2, "int8-dynamic": 3e-2},
}


@pytest.fixture(autouse=True)
def _no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host without NVIDIA's driver, whatever this one has."""
    plain = ctypes.CDLL

    def missing(name: str, *rest: Any) -> Any:
        if name == gpus.LIBRARY:
            raise OSError
        return plain(name, *rest)

    gpus.loaded.cache_clear()
    monkeypatch.setattr(ctypes, "CDLL", missing)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits' network for an H100."""
    path = tmp_path_factory.mktemp("cuda") / "digits.hyb"
    driver.compile(DIGITS, target="sm_90").save(path)
    return path


@NVCC
def test_an_artifact_for_a_gpu_tells_its_device_and_resources(
    digits: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert entry.run(["inspect", str(digits), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["format"], told["target"]["gpu"]["arch"]) == (3, "sm_90")
    assert told["target"]["cpu"] == "x86-64-v3"
    assert {row["kernel"] for row in told["resources"]} >= {"fused_conv2d_add_relu_kernel"}
    assert all(0 < row["registers"] <= 255 for row in told["resources"])
    assert all(row["spilled"] == 0 for row in told["resources"])
    assert all(0 < row["occupancy"] <= 1 for row in told["resources"])
    assert all(kernel["rule"].startswith("cuda-") for kernel in told["kernels"])


@NVCC
def test_its_machine_code_survives_the_file(digits: Path) -> None:
    loaded = Artifact.load(digits)
    assert loaded.device[:4] == b"\x7fELF"
    assert "hybridc.cubin" not in loaded.weights
    assert any("not verified here" in note for note in loaded.report["notes"])


@NVCC
def test_without_a_gpu_running_it_is_one_clear_line(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "image.npy", np.zeros((1, 1, 8, 8), "float32"))
    given = ["--input", f"image={tmp_path}/image.npy", "--output-dir", str(tmp_path / "out")]
    assert entry.run(["run", str(digits), *given]) == 2
    said = capsys.readouterr().err.strip()
    assert "runs on a GPU: this host has no NVIDIA driver" in said
    assert "\n" not in said
    assert not (tmp_path / "out").exists()


@NVCC
def test_another_architecture_is_named(digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hybridc.compiler import target

    here = gpus.Device(0, target.parse("nvidia/a100").device)
    monkeypatch.setattr(gpus, "devices", lambda: (here,))
    with pytest.raises(ArtifactError, match=r"code is for sm_90, and this host has a100 \(sm_80\)"):
        InferenceSession(digits)
    assert presence.unfit(Artifact.load(digits).target)


@NVCC
def test_the_same_model_gives_the_same_bytes(digits: Path, tmp_path: Path) -> None:
    driver.compile(DIGITS, target="sm_90").save(tmp_path / "again.hyb")
    assert (tmp_path / "again.hyb").read_bytes() == digits.read_bytes()


@NVCC
def test_a_contract_that_nobody_can_measure_here_is_refused() -> None:
    with pytest.raises(InputError, match="neither verified nor measured here: this host has no"):
        driver.compile(DIGITS, target="sm_90", contract=Contract(max_latency="5ms"))


def test_target_cuda_without_a_driver_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.run(["compile", DIGITS, "--target", "cuda"]) == 2
    assert "name it: nvidia/h100, sm_80" in capsys.readouterr().err


def _close(source: Any, dtype: str, arch: str) -> None:
    got, wanted = answers(source, plans.Options(target=arch, dtype=dtype))
    for have, want in zip(got, wanted, strict=True):
        limit = SHARES[dtype] * float(np.abs(want).max())
        np.testing.assert_allclose(have, want, rtol=0, atol=limit)


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_products_of_16_bits_reach_the_tensor_cores(dtype: str) -> None:
    """Nothing widens their operands on the way, and attention is one kernel."""
    for source in (residual_network(), transformer(rows=64, width=64)):
        kernels = records(source, plans.Options(target="sm_90a", dtype=dtype))
        rules = {record.rule for record in kernels}
        assert rules & {"cuda-tensor-matmul", "cuda-wgmma-matmul"}
        assert not rules & {"cuda-matmul", "cuda-fallback"}
    assert "cuda-attention" in rules


def test_bytes_reach_the_tensor_cores_and_attention_is_rounded() -> None:
    kernels = records(transformer(), plans.Options(target="sm_90a", dtype="int8"))
    taken = {(record.rule, record.precision) for record in kernels}
    assert ("cuda-tensor-matmul", "int8") in taken
    assert ("cuda-attention", "tf32") in taken
    assert not {rule for rule, _ in taken} & {"cuda-matmul", "cuda-fallback"}


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("dtype", SHARES)
@pytest.mark.parametrize(
    "source", [DIGITS, residual_network(), transformer()], ids=["digits", "residual", "transformer"]
)
def test_emulated_answers_in_every_precision(source: Any, dtype: str) -> None:
    _close(source, dtype, "sm_90a")


@NVCC
@pytest.mark.slow
@pytest.mark.parametrize("arch", ["sm_75", "sm_80", "sm_90a", "sm_120"])
@pytest.mark.parametrize("build", [residual_network, transformer])
def test_models_compile_for_every_architecture(build: Any, arch: str) -> None:
    dtype = "fp16" if arch == "sm_75" else "bf16"
    made = driver.compile_source(build(), plans.Options(target=arch, dtype=dtype))
    assert made.artifact.device
    assert all(row["spilled"] == 0 for row in made.report.resources)
    rules = {record.rule for record in made.report.kernels}
    assert "cuda-tensor-matmul" in rules
    assert "cuda-fallback" not in rules


@NVCC
@pytest.mark.parametrize("verb", ["verify ART", "bench ART"])
def test_what_needs_the_gpu_says_that_it_is_not_here(
    verb: str, digits: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert entry.run([word.replace("ART", str(digits)) for word in verb.split()]) == 2
    assert "has no NVIDIA driver" in capsys.readouterr().err


def test_kernels_for_a_gpu_that_is_not_here_are_not_tuned(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert entry.run(["tune", DIGITS, "--target", "sm_90", "--trials", "1"]) == 2
    assert "tuned on the GPU itself: --target cuda, not sm_90" in capsys.readouterr().err
    assert entry.run(["compile", DIGITS, "--target", "sm_90", "--trials", "1"]) == 2
    assert "tuned on the GPU itself: --target cuda, not sm_90" in capsys.readouterr().err
