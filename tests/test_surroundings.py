"""Commands in surroundings that containers, services and old terminals give them."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from hybridc.compiler import settings

HYBRIDC = [sys.executable, "-m", "hybridc.cli.main"]


def test_the_cache_is_where_the_user_says(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HYBRIDC_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/me")
    assert settings.cache_directory() == Path("/home/me/.cache/hybridc")
    monkeypatch.setenv("XDG_CACHE_HOME", "")  # which counts as not set
    assert settings.cache_directory() == Path("/home/me/.cache/hybridc")
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert settings.cache_directory() == Path("/caches/hybridc")
    monkeypatch.setenv("HYBRIDC_CACHE", "/mine")
    assert settings.cache_directory() == Path("/mine")


def test_a_user_without_name_and_home_has_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container; TVM cannot even be imported there."""

    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("HYBRIDC_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "home", no_home)
        settings.provide_home()
    assert settings.cache_directory() == Path("/nonexistent/.cache/hybridc")


def called(line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command line that a shell runs, with `hybridc` for ours."""
    return subprocess.run(
        ["sh", "-c", line.replace("hybridc", f"{sys.executable} -m hybridc.cli.main")],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_lead_to_nowhere(closed: str) -> None:
    done = called(f"hybridc passes legalize {closed}")
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    assert called(f"hybridc passes nosuch {closed}").returncode == 2


def test_a_full_disk_is_one_line() -> None:
    done = called("hybridc passes legalize > /dev/full")
    assert (done.returncode, done.stderr) == (2, "hybridc: error: No space left on device\n")


ASCII: Mapping[str, str] = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
LATIN: Mapping[str, str] = {"PYTHONIOENCODING": "latin-1"}


def test_a_terminal_without_unicode_shows_the_rest() -> None:
    done = called("hybridc compile --help", **LATIN)
    assert done.returncode == 0, done.stderr
    assert "A size can stay open: ?," in " ".join(done.stdout.split())
    assert "sm_90a, ?)" in " ".join(done.stdout.split())


@pytest.mark.parametrize("environment", [{}, ASCII, LATIN], ids=["utf-8", "ascii", "latin-1"])
def test_names_that_are_no_text_are_told(environment: Mapping[str, str], tmp_path: Path) -> None:
    name = os.fsdecode(os.fsencode(str(tmp_path)) + b"/caf\xe9\xff.onnx")
    done = subprocess.run(
        [*HYBRIDC, "compile", name],
        env={**os.environ, **environment},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith(b"hybridc: error: ")
    assert done.stderr.endswith(b".onnx: no such file\n")
    assert done.stderr.count(b"\n") == 1


def test_lower_limits_of_the_system_stay(tiny_model: Path) -> None:
    """Those of a batch system or a shell; nobody but root may raise them."""
    done = called(f"ulimit -t 60 && ulimit -d 8000000 && hybridc inspect {tiny_model}")
    assert done.returncode == 0, done.stderr
    assert "MatMul" in done.stdout


@pytest.mark.parametrize("verb", ["compile", "tune"])
def test_without_a_c_compiler_the_message_says_so(
    verb: str, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CC", "CXX"):
        monkeypatch.delenv(name, raising=False)
    done = subprocess.run(
        [*HYBRIDC, verb, str(tiny_model)],
        env={**os.environ, "PATH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("hybridc: error: no C compiler is found, and")
    assert not list(tmp_path.iterdir())
