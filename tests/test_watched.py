"""Code of the user's may end the process that it runs in, which is then no success."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from child_runs import PATIENCE, ended
from test_driver import classifier

SCRIPT = """
import ctypes, os, signal, sys, time
from hybridc.cli._watched import watched

def waits():
    print("waiting", flush=True)
    try:
        time.sleep(1000)
    except KeyboardInterrupt:
        return 130

runs = {
    "done": lambda: 0,
    "failed": lambda: 3,
    "leaves": lambda: os._exit(0),
    "leaves by 3": lambda: os._exit(3),
    "leaves in C": lambda: ctypes.CDLL(None).exit(0),
    "crashes": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "leaves a process": lambda: 0 if os.fork() else time.sleep(3) or 1,
    "waits": waits,
}
code = watched(runs[sys.argv[1]], lambda code: os._exit(7))
print(f"told {code}", flush=True)
os._exit(0)
"""


def begun(folder: Path, code: str, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )


def waiting(folder: Path) -> "subprocess.Popen[str]":
    running = begun(folder, SCRIPT, "waits")
    assert running.stdout is not None
    assert running.stdout.readline() == "waiting\n"
    return running


@pytest.mark.parametrize(
    ("how", "code"),
    [
        ("done", 0),
        ("failed", 3),
        ("leaves", None),
        ("leaves by 3", None),
        ("leaves in C", None),
        ("crashes", 128 + signal.SIGSEGV),
        ("leaves a process", 0),
    ],
)
def test_only_who_returns_is_done(tmp_path: Path, how: str, code: int | None) -> None:
    running = begun(tmp_path, SCRIPT, how)
    assert running.stdout is not None
    assert running.stdout.readline() == f"told {code}\n"
    running.communicate(timeout=PATIENCE)


def test_an_interrupt_of_the_process_that_was_called_is_passed_on(tmp_path: Path) -> None:
    running = waiting(tmp_path)
    running.send_signal(signal.SIGINT)
    assert running.communicate(timeout=PATIENCE)[0] == "told 130\n"


def test_the_command_ends_with_the_process_that_was_called(tmp_path: Path) -> None:
    running = waiting(tmp_path)
    (child,) = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
    running.kill()
    running.wait(PATIENCE)
    assert ended(int(child)), "the command goes on alone"


def test_a_function_that_ends_the_process_is_no_success(tmp_path: Path) -> None:
    onnx.save(classifier(), tmp_path / "model.onnx")
    (tmp_path / "own.py").write_text("import os\ndef ends(_):\n    os._exit(0)\n")
    code = "from hybridc.cli.main import main; main()"
    running = begun(tmp_path, code, "compile", "model.onnx", "--validate=own:ends", "-o", "m.hyb")
    out, err = running.communicate(timeout=PATIENCE)
    assert (running.returncode, out) == (2, "")
    assert "hybridc: error: the process was ended from within" in err
    assert not (tmp_path / "m.hyb").exists()
