"""A torch model that is wrong by one road comes in by another, and says so."""

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hybridc.compiler import driver  # noqa: E402 - needs torch
from hybridc.compiler.configuration.plans import Options  # noqa: E402
from hybridc.compiler.errors import PassError, WrongAnswerError  # noqa: E402
from hybridc.compiler.frontends import torch_model  # noqa: E402
from hybridc.compiler.runtime.session import InferenceSession  # noqa: E402

OPTIONS = Options(fallback=False)
X = torch.linspace(-1, 1, 6).reshape(2, 3)


class Doubled(torch.nn.Module):
    def forward(self, x: Any) -> Any:
        return x + x


class Squared(torch.nn.Module):
    def forward(self, x: Any) -> Any:
        return x * x


def misread(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Have a road import another model of the same form."""
    road = getattr(torch_model, name)
    other = torch_model.export(Squared(), (X,))
    monkeypatch.setattr(torch_model, name, lambda program, *given: road(other, *given))
    if name == "_through_onnx":
        to_onnx = torch_model.to_onnx
        monkeypatch.setattr(torch_model, "to_onnx", lambda program: to_onnx(other))


def test_a_wrong_answer_is_tried_by_the_other_road(monkeypatch: pytest.MonkeyPatch) -> None:
    misread(monkeypatch, "_through_onnx")
    outcome = driver.compile_source(Doubled(), OPTIONS, example_inputs=(X,))
    (got,) = InferenceSession(outcome.artifact).run(None, {"x": X.numpy()})
    np.testing.assert_array_equal(got, 2 * X.numpy())
    failed, taken, *_ = outcome.report.notes
    assert failed.startswith("failed by way of ONNX: output"), failed
    assert taken == "imported from torch by way of torch.export"


def test_where_all_are_wrong_each_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    misread(monkeypatch, "_through_onnx")
    misread(monkeypatch, "_directly")
    told = r"by way of ONNX\); by way of torch.export: output .*; no other way in: all were tried"
    with pytest.raises(WrongAnswerError, match=told):
        driver.compile_source(Doubled(), OPTIONS, example_inputs=(X,))


def test_a_pass_that_fails_is_tried_by_the_other_road(monkeypatch: pytest.MonkeyPatch) -> None:
    held: Any = driver
    compile_model, seen = held._compile, []

    def once(model: Any, *given: Any) -> Any:
        seen.append(model.road)
        if len(seen) == 1:
            raise PassError("fold: no")
        return compile_model(model, *given)

    monkeypatch.setattr(driver, "_compile", once)
    outcome = driver.compile_source(Doubled(), OPTIONS, example_inputs=(X,))
    assert seen == ["ONNX", "torch.export"]
    assert outcome.report.notes[0] == "failed by way of ONNX: fold: no"
