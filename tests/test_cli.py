"""The command line as people and scripts meet it: verbs, exit codes, one line for each error."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from child_runs import PATIENCE
from cli_models import RELU_TWICE, assert_error

from hybridc.cli import main as entry
from hybridc.compiler.errors import ContractError, InputError, MissingRecordError, WrongAnswerError

VERBS = (
    *("bench", "bisect", "compile", "conformance", "doctor", "inspect", "log", "opt", "passes"),
    *("reduce", "report", "run", "tune", "verify"),
)


def test_help_lists_every_verb_with_what_it_does(capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.run(["--help"]) == 0
    listed = dict(
        line.split(maxsplit=1)
        for line in capsys.readouterr().out.split("Commands:")[1].strip().splitlines()
    )
    assert tuple(listed) == VERBS
    assert all(summary.strip() for summary in listed.values())


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.run([verb, "--help"]) == 0
    assert f"Usage: hybridc {verb}" in capsys.readouterr().out


@pytest.mark.parametrize("verb", VERBS)
def test_what_an_option_takes_is_a_short_word(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    entry.run([verb, "--help"])
    taken = re.findall(r"^  (?:-\w, )?--[\w-]+ (\S+(?: RANGE)?)", capsys.readouterr().out, re.M)
    assert [word for word in taken if len(word) > 16 or word == "INTEGER RANGE"] == []


def test_a_group_alone_shows_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    for call in ([], ["log"]):
        assert entry.run(call) == 0
        assert "Commands:" in capsys.readouterr().out


def test_help_needs_no_heavy_library() -> None:
    code = (
        "import sys; from hybridc.cli.main import run; run(['--help']); "
        "heavy = {'tvm', 'torch', 'onnx', 'onnxruntime', 'numpy'} & set(sys.modules); "
        "sys.exit(' '.join(sorted(heavy)) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_tvm_is_imported_without_torch_and_takes_its_tensors_all_the_same() -> None:
    pytest.importorskip("torch")
    code = (
        "import sys; from hybridc.compiler.processes import tvm_alone; "
        "tvm_alone.hide_torch(); import tvm; "
        "assert 'torch' not in sys.modules; import torch; "
        "there = tvm.runtime.from_dlpack(torch.arange(3)); "
        "print(there.numpy().tolist(), torch.from_dlpack(there).tolist())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    assert done.stdout == "[0, 1, 2] [0, 1, 2]\n"


def test_torch_is_there_for_other_threads_while_tvm_is_imported(tmp_path: Path) -> None:
    """By a TVM that imports torch in its own thread and in another."""
    (tmp_path / "torch.py").touch()
    (tmp_path / "tvm.py").write_text(
        "import threading\nfound = []\n"
        "def look():\n    try:\n        import torch\n        found.append(True)\n"
        "    except ModuleNotFoundError:\n        found.append(False)\n"
        "look()\nthread = threading.Thread(target=look)\nthread.start()\nthread.join()\n"
    )
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); "
        "from hybridc.compiler.processes import tvm_alone; tvm_alone.hide_torch(); "
        "import tvm; print(tvm.found)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    assert done.stdout == "[False, True]\n"


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("hybridc 0.")


@pytest.mark.parametrize("verb", [[], ["log"]])
def test_verbs_are_listed_with_whole_sentences(
    verb: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert entry.run([*verb, "--help"]) == 0
    assert "..." not in capsys.readouterr().out.partition("Commands:")[2]


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["compil"], "did you mean 'compile'?"),
        (["nonsense-at-all"], "known: bench, bisect, compile"),
        (["--vrsion"], "--version"),
        (["passes", "--jsn"], "--json"),
        (["compile"], "MODEL"),
        (["passes", "fuze"], "did you mean 'fuse'?"),
        (["opt", "--pipeline", "fuze", "-"], "did you mean 'fuse'?"),
        (["opt", "-"], "--pipeline"),
        (["tune"], "MODEL"),
        (["tune", "m.onnx", "--strategy", "evolutionery"], "did you mean 'evolutionary'?"),
        (["tune", "m.onnx", "--strategy", "random{sede=3}"], "did you mean 'seed'?"),
        (["tune", "m.onnx", "--budget", "soon"], "5ms"),
        (["tune", "m.onnx", "--trials", "0"], "--trials"),
        (["tune", "m.onnx", "--caches", "hot"], "warm"),
        (["tune", "m.onnx", "--log", "mysql://here"], "postgresql"),
        (["bench", "m.onnx", "--seconds", "-1"], "--seconds"),
        (["bench", "m.onnx", "--seconds", "nan"], "--seconds must be a number of seconds, got nan"),
        (["tune", "no-such-model.onnx"], "no-such-model.onnx"),
        (["log", "expert", "a.jsonl"], "no verb is named 'log expert'; did you mean 'export'?"),
        (["log", "zzz"], "no verb is named 'log zzz'; known: explain-miss, export, gc"),
        (["opt", "--pipeline", "default", "m.onnx"], "TVMScript: it has no @I.ir_module"),
        (["log", "ls", "--log", "m.onnx"], "tuning log m.onnx is empty; `hybridc tune MODEL`"),
        (["compile", "m.onnx", "--budget", "soon"], "5ms"),
        (["compile", "m.onnx", "--trials", "4", "--frozen"], "leave out trials"),
    ],
)
def test_a_wrong_call_names_the_nearest(
    arguments: list[str],
    part: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("m.onnx").write_bytes(b"")
    script = tmp_path / "ir.py"
    script.write_text(RELU_TWICE)
    assert entry.run([str(script) if word == "-" else word for word in arguments]) == 2
    assert_error(capsys, part)


class _Failing:
    """A verb that fails in a given way."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def main(self, *_: object, **__: object) -> None:
        raise self.error


@pytest.mark.parametrize(
    ("error", "code", "part"),
    [
        (InputError("no such thing"), 2, "no such thing"),
        (WrongAnswerError("off by one"), 1, "off by one"),
        (ContractError("too slow"), 3, "too slow"),
        (MissingRecordError("no record"), 4, "no record"),
        (OSError(28, "No space left on device", "out.hyb"), 2, "No space left on device: out.hyb"),
        (ZeroDivisionError("division by zero"), 1, "hybridc compile m.onnx"),
        (InputError("two\nlines"), 2, "two lines"),
    ],
)
def test_each_kind_of_error_has_its_exit_code(
    error: BaseException,
    code: int,
    part: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(entry, "commands", _Failing(error))
    assert entry.run(["compile", "m.onnx"]) == code
    assert_error(capsys, part)


def test_a_fault_of_ours_says_how_to_report_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entry, "commands", _Failing(RuntimeError("first line\nsecond line")))
    assert entry.run(["inspect", "a b.onnx"]) == 1
    assert_error(capsys, "please report", "hybridc inspect 'a b.onnx'", "apache-tvm 0.", "--debug")


def test_debug_shows_the_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entry, "commands", _Failing(InputError("no such thing")))
    assert entry.run(["inspect", "m.onnx", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (BrokenPipeError(), 141)])
def test_an_interrupt_is_quiet(error: BaseException, code: int) -> None:
    script = (
        "import sys; from hybridc.cli import main; "
        f"main.commands.main = lambda *_, **__: (_ for _ in ()).throw({type(error).__name__}); "
        "sys.exit(main.run([]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, timeout=PATIENCE, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (code, b"", b"")


def test_an_interrupt_tells_what_it_leaves(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entry, "commands", _Failing(KeyboardInterrupt("half is done")))
    assert entry.run(["compile", "m.onnx"]) == 130
    assert capsys.readouterr().err == "hybridc: interrupted: half is done\n"


def test_a_verb_that_is_interrupted_tells_what_it_leaves_through_click(
    tiny_model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt("the stage that was measured is kept")

    monkeypatch.setattr("hybridc.compiler.driver.compile_source", interrupted)
    assert entry.run(["compile", str(tiny_model), "--strategy", "fusion"]) == 130
    told = capsys.readouterr().err.strip()
    assert told == "hybridc: interrupted: the stage that was measured is kept"


def test_a_reader_that_goes_away_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    code = "from hybridc.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "passes", "default"],
        stdout=writer,
        stderr=subprocess.PIPE,
        timeout=PATIENCE,
        check=False,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_passes_lists_passes_and_pipelines(capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.run(["passes"]) == 0
    out = capsys.readouterr().out
    assert "fold-constants" in out
    assert "default = simplify-inference," in out


def test_passes_explains_one_pass_with_its_options(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    plugin = tmp_path / "set_depth.py"
    plugin.write_text(
        "from dataclasses import dataclass\n"
        "from hybridc.compiler.interfaces import Context, IRModule, Pass\n"
        "@dataclass(frozen=True)\n"
        "class SetDepth(Pass):\n"
        '    """Sets the depth."""\n'
        "    depth: int = 4\n"
        "    def apply(self, module: IRModule, context: Context) -> IRModule:\n"
        "        return module\n"
    )
    assert entry.run(["passes", "set-depth", "--plugin", str(plugin), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "pass": "set-depth",
        "doc": "Sets the depth.",
        "options": [{"name": "depth", "type": "int", "default": 4}],
    }


def test_passes_gives_the_reasons_of_a_pipeline(capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.run(["passes", "default", "--json"]) == 0
    entries = json.loads(capsys.readouterr().out)["entries"]
    assert entries[0]["pass"] == "simplify-inference"
    assert all(len(item["reason"]) > 10 for item in entries)
