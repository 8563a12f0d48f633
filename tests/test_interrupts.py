"""SIGTERM and SIGHUP end a command as Ctrl-C does, each with the exit code that a shell expects."""

import fcntl
import importlib
import json
import os
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from child_runs import PATIENCE

from hybridc.cli._interrupts import INTERRUPTED, heeding

SIGNALS = [signal.SIGTERM, signal.SIGHUP]
MAIN = [sys.executable, "-c", "from hybridc.cli.main import main; main()"]
TOLD = """
import sys, time
from hybridc.cli._interrupts import INTERRUPTED, heeding

def work():
    try:
        print("at work", flush=True)
        time.sleep(1000)
    except KeyboardInterrupt:
        print("kept", flush=True)
        print("kept", file=sys.stderr, flush=True)
        return INTERRUPTED

sys.exit(heeding(work))
"""
EARLY = """
import os, signal, sys

class Interrupting:
    def find_spec(self, name, *_):
        if name == sys.argv[1]:
            os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)
sys.meta_path.insert(0, Interrupting())
from hybridc.cli._start import main
main()
"""
WAITING = """
import time
from dataclasses import dataclass
from hybridc.compiler.interfaces import Context, IRModule, Pass

@dataclass(frozen=True)
class WaitAtLast(Pass):
    \"\"\"Wait.\"\"\"

    def apply(self, module: IRModule, context: Context) -> IRModule:
        time.sleep(1000)
        return module
"""


@pytest.fixture(autouse=True)
def signals_are_heeded() -> Iterator[None]:
    """Whoever runs the tests may ignore them, as a background job, and children inherit that."""
    usual = {**dict.fromkeys(SIGNALS, signal.SIG_DFL), signal.SIGINT: signal.default_int_handler}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("name", ["click", "hybridc.cli.main"])
def test_ctrl_c_while_the_command_is_imported_is_no_fault(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", EARLY, name], stderr=subprocess.PIPE, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (INTERRUPTED, "")


@pytest.mark.parametrize("number", [*SIGNALS, signal.SIGINT])
def test_a_signal_interrupts_and_gives_the_exit_code(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.getsignal(number)
    monkeypatch.setattr("hybridc.cli._interrupts.time", SimpleNamespace(monotonic=lambda: 1.0))

    def run() -> int:
        told = "" if number is signal.SIGINT else number.name
        with pytest.raises(KeyboardInterrupt, match=f"^{told}$"):
            signal.raise_signal(number)
        signal.raise_signal(number)  # the same, which came twice
        return INTERRUPTED

    assert heeding(run) == 128 + number
    assert signal.getsignal(number) is before


def test_what_interrupts_the_telling_of_an_end_ends_it() -> None:
    def run() -> int:
        signal.raise_signal(signal.SIGINT)
        return 0

    assert heeding(run) == INTERRUPTED


def test_what_interrupts_a_function_that_tvm_calls_is_still_an_interruption() -> None:
    import tvm_ffi

    importlib.import_module("hybridc.compiler.runtime.tensors")  # which tells TVM

    def interrupted() -> None:
        raise KeyboardInterrupt("SIGTERM")

    with pytest.raises(KeyboardInterrupt, match="SIGTERM"):
        tvm_ffi.convert(interrupted)()


def test_without_a_signal_the_code_is_the_commands() -> None:
    assert [heeding(lambda code=code: code) for code in (0, 2, INTERRUPTED)] == [0, 2, INTERRUPTED]


def test_what_is_ignored_stays_ignored() -> None:
    def run() -> int:
        signal.raise_signal(signal.SIGHUP)
        return 0

    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        assert heeding(run) == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_terminal_that_closes_ends_the_command_in_order() -> None:
    ours, theirs = os.openpty()
    running = subprocess.Popen(
        [sys.executable, "-c", TOLD],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509
    )
    os.close(theirs)
    assert b"at work" in os.read(ours, 100)
    os.close(ours)
    assert running.wait(PATIENCE) == 128 + signal.SIGHUP


def ended(call: list[str], folder: Path, number: signal.Signals, line: bytes) -> tuple[int, bytes]:
    """Send a signal to a command once it tells a line; its exit code, and the rest of its stderr.

    Its temporary files are in the folder.
    """
    running = subprocess.Popen(
        [*MAIN, *call],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=folder.parent,
        env={**os.environ, "TMPDIR": str(folder), "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert running.stderr is not None
    for told in running.stderr:
        if line in told:
            running.send_signal(number)
            break
    rest = running.communicate(timeout=PATIENCE)[1]
    return running.returncode, rest


@pytest.mark.parametrize("number", SIGNALS)
def test_a_tuning_that_is_ended_keeps_what_was_measured_and_no_files(
    tmp_path: Path, tiny_model: Path, number: signal.Signals
) -> None:
    folder, log = tmp_path / "tmp", str(tmp_path / "log.db")
    folder.mkdir()
    call = ["tune", str(tiny_model), "--trials", "500", "--log", log, "--threads", "1"]
    code, _ = ended([*call, "--workers", "1", "-v"], folder, number, b"0/500 ")
    assert code == 128 + number
    assert not list(folder.iterdir())
    shown = subprocess.run(
        [*MAIN, "log", "ls", "--json", "--log", log], check=True, capture_output=True
    )
    assert json.loads(shown.stdout)  # the default, at least


@pytest.mark.parametrize("own", [[], ["--validate", "own:number"]])
def test_a_compilation_that_is_ended_says_so_in_one_line(
    tmp_path: Path, tiny_model: Path, own: list[str]
) -> None:
    """In a child that is watched too, which code of the user's may run in."""
    (tmp_path / "own.py").write_text("def number(_):\n    return 1.0\n")
    (tmp_path / "wait_at_last.py").write_text(WAITING)  # for who is slow to send the signal
    call = ["compile", str(tiny_model), "-v", "-o", str(tmp_path / "model.hyb"), *own]
    call += ["--plugin", str(tmp_path / "wait_at_last.py"), "--pipeline", "default,wait-at-last"]
    folder = tmp_path / "tmp"
    folder.mkdir()
    code, told = ended(call, folder, signal.SIGTERM, b"legalize")
    assert (code, told.splitlines()[-1]) == (143, b"hybridc: interrupted: SIGTERM")
    assert {each.name for each in folder.iterdir()} <= {".ses"}  # which ONNX Runtime leaves there
    assert not (tmp_path / "model.hyb").exists()
