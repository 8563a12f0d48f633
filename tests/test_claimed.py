"""Claims while the work goes on."""

import threading
from pathlib import Path

import pytest

from hybridc.compiler.errors import LogError
from hybridc.compiler.log import access, claims
from hybridc.compiler.log.store import TuningLog
from hybridc.compiler.tuning.claimed import claimed


def test_a_claim_is_renewed_though_the_log_was_busy_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first claim runs out at once, and the second fails: only the third can hold."""
    asked, renewed = list[float](), threading.Event()
    claim, work = TuningLog.claim, claims.name("work")

    def busy(log: TuningLog, names: list[str], owner: str, lease: float) -> list[str]:
        asked.append(lease)
        if len(asked) == 2:
            raise LogError("database is locked")
        found = claim(log, names, owner, 60.0 if len(asked) > 2 else 0.01)
        if len(asked) > 2:
            renewed.set()
        return found

    monkeypatch.setattr(TuningLog, "claim", busy)
    with access.open_log(str(tmp_path / "log.sqlite")) as log, claimed(log, work, "one", 0.4):
        assert renewed.wait(600)
        assert claim(log, [work], "two", 1.0) == []
    assert set(asked) == {0.4}
