"""`hybridc opt`: passes on IR as text."""

from pathlib import Path

import pytest
from cli_models import RELU_TWICE, assert_error

from hybridc.cli import main as entry
from hybridc.compiler.hardware import host


def test_opt_prints_a_module_that_it_reads_again(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    script = tmp_path / "ir.py"
    script.write_text(RELU_TWICE)
    pipeline = ["--pipeline", "eliminate-common-subexpressions"]
    assert entry.run(["opt", *pipeline, "--check", str(script)]) == 0
    out, err = capsys.readouterr()
    assert out.count("R.nn.relu") == 1
    assert "largest difference 0" in err
    script.write_text(out)
    assert entry.run(["opt", *pipeline, str(script)]) == 0
    assert capsys.readouterr().out == out


def test_opt_reads_what_the_default_pipeline_ends_in(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    script = tmp_path / "ir.py"
    script.write_text(RELU_TWICE)
    assert entry.run(["opt", "--pipeline", "default", "--threads", "1", str(script)]) == 0
    text = capsys.readouterr().out
    assert "alloc_tensor" in text
    script.write_text(text)
    again = ["--pipeline", "eliminate-dead-code", "--check", str(script)]
    assert entry.run(["opt", *again]) == 0
    out, err = capsys.readouterr()
    assert out == text
    assert "largest difference 0" in err


def test_opt_reads_the_mark_of_what_may_be_rounded(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    script = tmp_path / "ir.py"
    marked = RELU_TWICE.replace("R.nn.relu(x)", "R.hybridc.roundable(x)")
    assert marked.count("R.hybridc.roundable(x)") > 0
    script.write_text(marked)
    call = ["opt", "--pipeline", "eliminate-dead-code", "--check", str(script)]
    assert entry.run(call) == 0
    text = capsys.readouterr().out
    assert "R.hybridc.roundable(x)" in text
    script.write_text(text)
    assert entry.run(call) == 0
    assert capsys.readouterr().out == text


def test_opt_runs_no_instructions_that_this_cpu_lacks(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "ir.py"
    script.write_text(RELU_TWICE)
    monkeypatch.setattr(host, "cpu_features", lambda: frozenset({"avx2", "fma"}))
    call = ["opt", "--pipeline", "legalize", "--target", "avx512", "--check", str(script)]
    assert entry.run(call) == 2
    assert_error(capsys, "--check runs kernels on this CPU, which lacks avx, avx512")


def test_opt_writes_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script, made = tmp_path / "ir.py", tmp_path / "made.py"
    script.write_text(RELU_TWICE)
    assert entry.run(["opt", "--pipeline", "legalize", str(script), "-o", str(made)]) == 0
    assert not capsys.readouterr().out
    assert "R.call_tir" in made.read_text()


def test_opt_takes_passes_and_rules_of_the_target(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "ir.py"
    script.write_text(RELU_TWICE)
    call = ["opt", "--pipeline", "default", "--target", "nvidia/h100", str(script)]
    assert entry.run(call) == 0
    assert "threadIdx.x" in capsys.readouterr().out
    assert entry.run([*call, "--check"]) == 2
    assert_error(capsys, "--check runs kernels on this CPU, and cannot run those for nvidia/h100")


def test_opt_takes_a_module_with_the_imports_that_python_needs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    imports = "from tvm.script import ir as I\nfrom tvm.script import relax as R, tirx as T\n\n"
    (tmp_path / "ir.py").write_text(imports + RELU_TWICE)
    assert entry.run(["opt", "--pipeline", "eliminate-dead-code", str(tmp_path / "ir.py")]) == 0
    assert "R.nn.relu" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["garbage", "", "x = 1", "import os", RELU_TWICE[:200]])
def test_opt_refuses_what_is_no_module(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "ir.py"
    script.write_text(text)
    assert entry.run(["opt", "--pipeline", "legalize", str(script)]) == 2
    assert_error(capsys, "ir.py is not a Relax module in TVMScript")


def test_opt_refuses_a_missing_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.run(["opt", "--pipeline", "legalize", str(tmp_path / "none.py")]) == 2
    assert_error(capsys, "none.py")


def test_opt_check_catches_a_pass_that_changes_the_result(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plugin = tmp_path / "drop_relu.py"
    plugin.write_text(
        "from dataclasses import dataclass\n"
        "import tvm\n"
        "from hybridc.compiler.interfaces import Context, IRModule, Pass\n"
        "@dataclass(frozen=True)\n"
        "class DropRelu(Pass):\n"
        '    """Wrong on purpose."""\n'
        "    def apply(self, module: IRModule, context: Context) -> IRModule:\n"
        "        return tvm.script.from_source(module.script().replace('relu', 'silu'))\n"
    )
    script = tmp_path / "ir.py"
    script.write_text(RELU_TWICE)
    call = ["opt", "--pipeline", "drop-relu", "--plugin", str(plugin), "--check", str(script)]
    assert entry.run(call) == 1
    assert_error(capsys, "output 0 changed by up to")


def test_what_has_no_end_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hybridc.cli.opt._LONGEST", 1000)
    assert entry.run(["opt", "--pipeline", "fuse", "/dev/zero"]) == 2
    assert_error(capsys, "/dev/zero is too long for a Relax module")


def test_what_is_no_text_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "ir.py").write_bytes(b"\xff\xfe")
    assert entry.run(["opt", "--pipeline", "legalize", str(tmp_path / "ir.py")]) == 2
    assert_error(capsys, "ir.py is not a Relax module in TVMScript: no text")
