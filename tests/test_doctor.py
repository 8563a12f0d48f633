"""What the doctor says of installations that are broken in known ways."""

import json
import os
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import SimpleNamespace

import pytest

from hybridc.cli import main as entry
from hybridc.compiler.hardware import host
from hybridc.compiler.installation import doctor, packages
from hybridc.compiler.installation.doctor import Check
from hybridc.compiler.log import access


def found(name: str) -> Check:
    (check,) = [check for check in doctor.examine() if check.name == name]
    return check


def pretend(monkeypatch: pytest.MonkeyPatch, package: str, release: str | None) -> None:
    """Let `package` have another release, or be missing."""

    def pretended(name: str) -> str:
        if name != package:
            return version(name)
        if release is None:
            raise PackageNotFoundError(name)
        return release

    monkeypatch.setattr(packages, "version", pretended)


def answer(monkeypatch: pytest.MonkeyPatch, **given: object) -> None:
    """Let TVM's start find this."""
    told = {"version": "0", "threads": 64, "named": "znver4", "cpu": "znver4", "attributes": []}
    text = json.dumps({**told, **given})
    monkeypatch.setattr(doctor, "_PROBE", f"print({text!r})")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """TVM's start takes seconds; the tests that want it put the real probe back."""
    answer(monkeypatch)


def test_this_installation_is_healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    checks = doctor.examine()
    assert [check for check in checks if check.status == "bad"] == []
    assert {"python", "apache-tvm", "tvm", "threads", "cpu", "c compiler", "cache"} <= {
        check.name for check in checks
    }


def test_the_release_that_crashes_is_named_with_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, "apache-tvm-ffi", "0.1.15")
    check = found("apache-tvm-ffi")
    assert check.status == "bad"
    assert "0.1.15, but ==0.1.14.post1 is needed" in check.found
    assert "crashes" in check.found
    assert check.advice == "pip install 'apache-tvm-ffi==0.1.14.post1'"


def test_a_missing_package_is_bad(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, "blake3", None)
    assert found("blake3").status == "bad"
    assert "pip install" in found("blake3").advice


def test_a_missing_extra_is_only_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, "openvino", None)
    check = found("extra bench")
    assert (check.status, check.found) == ("note", "without openvino")
    assert "hybridc[bench]" in check.advice
    assert found("extra torch").found == ("installed" if _has("torch") else "without torch")


def _has(package: str) -> bool:
    try:
        return bool(version(package))
    except PackageNotFoundError:
        return False


@pytest.mark.parametrize("probe", ["raise SystemExit('no symbol')", "import os; os.abort()", ""])
def test_a_tvm_that_does_not_start_is_bad(probe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_PROBE", probe)
    check = found("tvm")
    assert check.status == "bad"
    assert check.found.startswith("it does not start: ")


def test_threads_that_are_left_idle_are_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "cores", lambda: 8)
    answer(monkeypatch, threads=4)
    check = found("threads")
    assert (check.status, check.found) == ("note", "TVM takes 4 of 8 cores")


def test_a_machine_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.shutil, "which", lambda _: None)
    monkeypatch.setattr(doctor.toolchain, "_find_nvrtc", lambda: (None, ()))
    assert found("c compiler").status == "bad"
    assert found("cuda compiler").status == "note"
    assert "hybridc[cuda]" in found("cuda compiler").advice


def test_an_old_cpu_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "cpu_features", lambda: frozenset({"sse4.2"}))
    assert found("cpu").status == "note"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "for znver4"),
        (
            {"named": "emeraldrapids", "cpu": "emeraldrapids", "attributes": ["-amx-tile"]},
            "for emeraldrapids, without what this host does not offer: amx-tile",
        ),
        (
            {"named": "generic", "cpu": "x86-64-v3", "attributes": ["+avxvnni", "+vaes"]},
            "for x86-64-v3 with avxvnni, vaes (LLVM does not know this CPU, and calls it generic)",
        ),
    ],
)
def test_for_which_cpu_code_is_generated(
    given: dict[str, object], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(monkeypatch, **given)
    assert (found("code").status, found("code").found) == ("ok", told)


def test_caches_that_the_system_does_not_tell_of_are_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "_CPUS", tmp_path)
    check = found("caches")
    assert check.status == "note"
    assert check.found.endswith("does not tell of L1, L2, L3, and usual sizes are assumed")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    monkeypatch.setenv("HYBRIDC_CACHE", str(locked / "cache"))
    assert found("cache").status == "note"


def test_a_cache_that_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cache").write_text("")
    monkeypatch.setenv("HYBRIDC_CACHE", str(tmp_path / "cache"))
    assert found("cache").status == "note"


def test_the_tuning_log_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log.sqlite"
    monkeypatch.setenv("HYBRIDC_LOG", str(path))
    assert found("tuning log").found == f"{path} does not exist yet"
    access.open_log(str(path)).close()
    assert found("tuning log").found == f"{path}, 0 records"
    for wrong in (str(Path(__file__)), "postgresql:/me:secret@127.0.0.1/x"):
        monkeypatch.setenv("HYBRIDC_LOG", wrong)
        seen = found("tuning log")
        assert seen.status == "note"
        assert "secret" not in seen.found
        assert "HYBRIDC_LOG" in seen.advice


def test_a_temporary_folder_that_code_cannot_be_loaded_from_is_bad(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert found("temporary").status == "ok"
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_flag=os.ST_NOEXEC))
    check = found("temporary")
    assert (check.status, "noexec" in check.found) == ("bad", True)
    assert check.advice == "set TMPDIR to a folder on another file system"


def test_the_verb_leaves_with_2_when_something_is_broken(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pretend(monkeypatch, "apache-tvm-ffi", "0.1.15")
    assert entry.run(["doctor", "--json"]) == 2
    data = json.loads(capsys.readouterr().out)
    assert data["healthy"] is False
    bad = [check["name"] for check in data["checks"] if check["status"] == "bad"]
    assert bad == ["apache-tvm-ffi"]


def test_the_verb_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.run(["doctor"]) == 0
    out = capsys.readouterr().out
    assert f"{sys.version_info.major}.{sys.version_info.minor}" in out
    assert "what to do" in out.splitlines()[0]


def test_advice_is_not_pushed_to_the_right_by_what_others_found() -> None:
    checks = [Check("gpu", "note", "none", "get one"), Check("cpu", "ok", "avx " * 30)]
    _, gpu, advice, _ = doctor.text(checks).splitlines()
    assert gpu == "note  gpu    none"
    assert advice == "             -> get one"
