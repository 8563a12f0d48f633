"""`benchmarks/gpu.py` where there is no GPU: what is measured first, and what it tells of tests."""

from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parent.parent / "benchmarks"


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


def test_kernels_come_first_and_what_takes_minutes_last(page: Any) -> None:
    found = page.rows()
    assert all(row.table == "matrix products" for row in found[:6])
    ranks = [row.rank for row in found]
    assert ranks == sorted(ranks)
    slow = [
        place
        for place, row in enumerate(found)
        if row.name.endswith("1: torch.compile, max-autotune")
    ]
    assert min(slow) > max(
        place for place, row in enumerate(found) if row.name.endswith("batch 1: ours")
    )


def test_a_row_that_fails_or_hangs_costs_no_other(page: Any, tmp_path: Path) -> None:
    import time

    def fails(_: Any) -> Any:
        raise RuntimeError("CUDALaunch Error")

    how = page.How(dry=True, small=True, end=time.monotonic() + 60)
    made = page.Page(tmp_path / "page.md", "head")
    for name, work, limit in (
        ("broken", fails, 30),
        ("stuck", lambda _: time.sleep(60), 1),
        ("good", lambda _: {"µs": "7"}, 30),
    ):
        row = page.Row("kernels", name, limit, work)
        made.add(row, page.measured(row, how))
    text = (tmp_path / "page.md").read_text()
    assert "failed: RuntimeError: CUDALaunch Error" in text
    assert "no answer in time" in text
    assert "  7" in text
