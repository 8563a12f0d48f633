"""Recurrent layers that are imported by way of torch.export compute what eager does."""

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from onnx_models import check  # noqa: E402 - needs torch
from torch import nn  # noqa: E402

from hybridc.compiler.errors import ModelError  # noqa: E402
from hybridc.compiler.frontends import torch_model  # noqa: E402
from hybridc.compiler.kernels import recurrence  # noqa: E402

FORMS = (
    {},
    {"num_layers": 2, "bidirectional": True, "batch_first": True},
    {"bidirectional": True, "bias": False},
    {"num_layers": 3, "batch_first": True, "dropout": 0.5},
)
LAYERS = ("LSTM", "GRU", "RNN")
# All forms of one kind, and the richest of each; the other pairs say the same again.
PAIRS = [
    pytest.param(kind, form, marks=() if kind == "LSTM" or form is FORMS[1] else pytest.mark.slow)
    for kind in LAYERS
    for form in FORMS
]


class Layers(nn.Module):
    """A recurrent network, and what is done to all its states."""

    def __init__(self, kind: str, form: Any, inputs: int = 6, hidden: int = 5) -> None:
        super().__init__()
        self.layers = getattr(nn, kind)(inputs, hidden, **form)

    def forward(self, x: Any, *state: Any) -> Any:
        given = (state[0] if len(state) == 1 else state) if state else None
        y, last = self.layers(x, given)
        return (2 * y, *(last if isinstance(last, tuple) else (last,)))


def imported(module: nn.Module, *inputs: Any) -> Any:
    return torch_model.load(module.eval(), inputs, ["torch.export"])


def agree(module: nn.Module, *inputs: Any) -> Any:
    """Compare on the inputs given; returns the model."""
    model = imported(module, *inputs)
    check(model, {spec.name: x.numpy() for spec, x in zip(model.inputs, inputs, strict=True)})
    return model


@pytest.mark.parametrize(("kind", "form"), PAIRS)
def test_every_direction_is_one_kernel(kind: str, form: Any) -> None:
    torch.manual_seed(0)
    model = agree(Layers(kind, form), torch.randn(4, 7, 6))
    calls = str(model.module["main"]).count("R.call_tir")
    wanted = form.get("num_layers", 1) * (2 if form.get("bidirectional") else 1)
    assert calls == wanted
    assert recurrence.NAME in {var.name_hint for var in model.module.get_global_vars()}


@pytest.mark.parametrize("kind", LAYERS)
def test_states_that_are_given(kind: str) -> None:
    torch.manual_seed(0)
    states = [torch.randn(2, 3, 5) for _ in range(2 if kind == "LSTM" else 1)]
    agree(Layers(kind, {"num_layers": 2}), torch.randn(4, 3, 6), *states)


@pytest.mark.parametrize("layers", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", LAYERS)
def test_of_float64_and_of_one_sequence(kind: str, layers: int) -> None:
    torch.manual_seed(0)
    form = {"bidirectional": True, "num_layers": layers}
    agree(Layers(kind, form).double(), torch.randn(3, 2, 6, dtype=torch.float64))
    agree(Layers(kind, form), torch.randn(3, 6))


def test_projections_are_refused() -> None:
    with pytest.raises(ModelError, match="projections"):
        imported(Layers("LSTM", {"proj_size": 3}), torch.randn(4, 2, 6))
