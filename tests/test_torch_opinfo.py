"""The suite torch-opinfo runs torch's own cases and tells wrong answers from refusals."""

from typing import Any

import pytest

from hybridc.compiler.conformance.examiner import judged
from hybridc.compiler.conformance.suite import Verdict, suites
from hybridc.compiler.conformance.suites import torch_opinfo

torch = pytest.importorskip("torch")


def verdict(monkeypatch: pytest.MonkeyPatch, function: Any, *args: Any) -> Verdict:
    monkeypatch.setattr(torch_opinfo, "_cases", lambda: {"op/own": lambda: (function, args, {})})
    suite = suites().create("torch-opinfo")
    assert [entry.group for entry in suite.entries(core=True)] == ["op"]
    return judged("op/own", "op", lambda: suite.examine("op/own")).verdict


def test_verdicts(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(2, 3)
    assert verdict(monkeypatch, lambda a, by: a * by, x, 2.0) == Verdict.PASS
    assert verdict(monkeypatch, torch.rand_like, x) == Verdict.UNSUPPORTED
    monkeypatch.setattr(torch_opinfo, "_compiled", lambda *_: ([x.numpy()], False))
    assert verdict(monkeypatch, torch.neg, x) == Verdict.WRONG
    monkeypatch.setattr(torch_opinfo, "_compiled", lambda *_: ([x.numpy()], True))
    assert verdict(monkeypatch, torch.clone, x) == Verdict.FALLBACK


@pytest.mark.slow
def test_the_cases_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("expecttest")
    suite = suites().create("torch-opinfo")
    names = {entry.name for entry in suite.entries(core=False)}
    assert {"op/addmm", "module/nn.LSTM", "export/dictionary"} <= names
    for name in ("op/addmm", "module/nn.LSTM", "export/dictionary"):
        assert suite.examine(name).verdict == Verdict.PASS
