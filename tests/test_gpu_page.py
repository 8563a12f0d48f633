"""`benchmarks/gpu.py` where there is no GPU: what is measured first, and what it tells of tests."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from child_runs import PATIENCE

FOLDER = Path(__file__).parent.parent / "benchmarks"
# Forks wait for ever for locks that other threads hold, and pytest's workers have such.
ALONE = "HYBRIDC_TESTS_ALONE"
alone = pytest.mark.skipif(ALONE not in os.environ, reason="tested in a process of its own")


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module."""
    monkeypatch.syspath_prepend(str(FOLDER))
    import gpu

    return gpu


WHOLE = """
tests/test_gpu.py::test_a PASSED [ 50%]
[gw1] [100%] FAILED tests/test_gpu.py::test_b[x]
=========================== short test summary info ============================
FAILED tests/test_gpu.py::test_b[x] - InternalError: CUDALaunch
=================== 1 failed, 1 passed, 3 skipped in 9.00s ====================
"""


def test_half_an_output_of_pytest_is_counted(page: Any) -> None:
    whole = page.told_by_tests(WHOLE, whole=True)
    assert whole.startswith("1 failed, 1 passed, 3 skipped")
    assert "test_b[x] - InternalError" in whole
    half = page.told_by_tests("\n".join(WHOLE.splitlines()[:3]), whole=False)
    assert half.startswith("1 passed, 1 failed")
    assert page.told_by_tests("", whole=False) == "nothing was tested"


def test_a_dry_run_computes_bfloat16(page: Any, tmp_path: Path) -> None:
    """On a CPU, which no kernel in bfloat16 can be compiled for as it is."""
    from gpu_kernel_rows import arrays_of, compiled, error, kernel, ours, product, widened

    machine = page.How(True, True, time.monotonic(), 60.0).machine()

    def case(machine: Any) -> Any:
        return product((128, 768, 768), "bfloat16", machine)

    compiled(case, machine, tmp_path)
    func = kernel(case(machine), machine.here)
    arrays = arrays_of(func)
    _, made = ours(func, arrays, machine, tmp_path)
    assert error(made, case(machine).peer(*widened(arrays, "cpu"))) < 3e-2


def test_models_come_first_and_what_takes_minutes_last(page: Any) -> None:
    found = page.rows()
    assert all("batch 1: " in row.name for row in found[:8])
    ranks = [row.rank for row in found]
    assert ranks == sorted(ranks)
    slow = [place for place, row in enumerate(found) if "max-autotune" in row.name]
    assert min(slow) > max(
        place for place, row in enumerate(found) if row.name.endswith("32: ours")
    )


@pytest.mark.skipif(ALONE in os.environ, reason="this is that process")
def test_what_forks_is_right_in_a_process_of_its_own() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:cacheprovider"]
    told = subprocess.run(
        [*command, "-k", "row or call or time", __file__],
        env={**os.environ, ALONE: "1"},
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
        check=False,
    )
    assert told.returncode == 0, told.stdout
    assert "5 passed" in told.stdout


def row_of(page: Any, name: str, measure: Any, prepare: Any = None, **how: Any) -> Any:
    """A row that is made up."""
    return page.Row("kernels", name, how.pop("limit", 300), measure, 0, prepare, **how)


def run_through(page: Any, rows: list[Any], folder: Path, seconds: float = PATIENCE) -> Any:
    """The page behind these rows."""
    how = page.How(dry=True, small=True, begun=time.monotonic(), seconds=seconds)
    made = page.Page(folder / "page.md", "head", "code")
    ahead = page.Ahead(rows, lambda: None, Path(tempfile.mkdtemp(dir=folder)))
    ahead.begin(1, warms=False)
    for some in ahead.in_turn(how.end):
        for row, cells in page.measured(some, how, ahead):
            made.add(row, cells)
    ahead.end(warms=False)
    return made


@alone
def test_a_row_that_fails_or_hangs_costs_no_other(page: Any, tmp_path: Path) -> None:
    def fails(*_: Any) -> Any:
        raise RuntimeError("CUDALaunch Error")

    rows = [
        row_of(page, "broken", fails),
        row_of(page, "stuck", lambda *_: time.sleep(1000), limit=1),
        row_of(page, "good", lambda *_: {"µs": "7"}),
        row_of(page, "not compiled", lambda *_: {"µs": "8"}, fails),
        row_of(page, "never compiled", lambda *_: {}, lambda *_: time.sleep(1000), limit=1),
    ]
    run_through(page, rows, tmp_path)
    text = (tmp_path / "page.md").read_text()
    assert text.count("failed: RuntimeError: CUDALaunch Error") == 2
    assert text.count("no answer in time") == 2
    assert "  7" in text
    assert "  8" not in text


@alone
def test_rows_of_a_kind_share_a_process_until_one_fails(page: Any, tmp_path: Path) -> None:
    def told(*_: Any) -> Any:
        return {"process": str(os.getpid())}

    def dies(*_: Any) -> Any:
        os.kill(os.getpid(), signal.SIGKILL)

    rows = [row_of(page, name, told) for name in ("one", "two")]
    rows += [row_of(page, "dead", dies), row_of(page, "three", told)]
    made = run_through(page, rows, tmp_path)
    one, two, three = (made.found["kernels", name]["process"] for name in ("one", "two", "three"))
    assert one == two != three
    assert str(os.getpid()) not in (one, three)
    assert "SIGKILL" in made.told(rows[2])


@alone
def test_a_row_gets_what_it_prepared_and_others_do_not_wait_for_it(
    page: Any, tmp_path: Path
) -> None:
    def second(*_: Any) -> Any:
        (tmp_path / "second").touch()
        return {"µs": "7"}

    def prepare(_: Any, folder: Path) -> None:
        while not (tmp_path / "second").exists():
            time.sleep(0.01)
        (folder / "kernel").write_text("made ahead")

    def measure(_: Any, folder: Path) -> Any:
        return {"kernel": (folder / "kernel").read_text()}

    rows = [row_of(page, "first", measure, prepare), row_of(page, "second", second)]
    made = run_through(page, rows, tmp_path)
    assert [name for _, name in made.found] == ["second", "first"]
    assert made.told(rows[0]) == "kernel made ahead"


@alone
def test_a_later_call_adds_to_the_page_of_the_same_code(page: Any, tmp_path: Path) -> None:
    first = row_of(page, "first", lambda *_: {"µs": "7"})
    second = row_of(page, "second", lambda *_: {"µs": "8"})
    run_through(page, [first], tmp_path)
    run_through(page, [second], tmp_path)
    again = page.Page(tmp_path / "page.md", "head", "code")
    assert list(again.found) == [("kernels", "first"), ("kernels", "second")]
    for missed in ("not run: no time was left", "not compiled in time", "no answer in time"):
        again.add(first, {"result": missed})
    assert again.told(first) == "µs 7"
    assert not page.Page(tmp_path / "page.md", "head", "other code").found


@alone
def test_when_time_is_over_the_rest_is_told(page: Any, tmp_path: Path) -> None:
    rows = [row_of(page, "late", lambda *_: {"µs": "7"}, lambda *_: time.sleep(1000))]
    made = run_through(page, rows, tmp_path, seconds=0.2)
    assert made.told(rows[0]) == "result not run: no time was left"
