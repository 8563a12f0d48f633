"""Claims while the work goes on."""

import time
from pathlib import Path

import pytest

from hybridc.compiler.errors import LogError
from hybridc.compiler.log import access, claims
from hybridc.compiler.log.store import TuningLog
from hybridc.compiler.tuning.claimed import claimed


def test_a_claim_is_renewed_though_the_log_was_busy_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = list[float]()
    claim, work = TuningLog.claim, claims.name("work")

    def busy(log: TuningLog, names: list[str], owner: str, lease: float) -> list[str]:
        asked.append(lease)
        if len(asked) == 2:
            raise LogError("database is locked")
        return claim(log, names, owner, lease)

    monkeypatch.setattr(TuningLog, "claim", busy)
    with access.open_log(str(tmp_path / "log.sqlite")) as log, claimed(log, work, "one", 1.0):
        time.sleep(1.2)
        assert claim(log, [work], "two", 1.0) == []
    assert len(asked) > 2
