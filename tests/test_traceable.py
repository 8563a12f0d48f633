"""Modules that torch's own functions keep `torch.export` from are exported all the same."""

from typing import Any

import numpy as np
import pytest
from onnx_models import check

torch = pytest.importorskip("torch")

from hybridc.compiler.errors import InputError  # noqa: E402 - needs torch
from hybridc.compiler.frontends import torch_model  # noqa: E402
from hybridc.compiler.frontends.torch_import.traceable import traceable  # noqa: E402

nn = torch.nn


class Decoder(nn.Module):
    """Torch's decoder behind a mask, which it wants to know the kind of."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerDecoderLayer(8, 2, 16, batch_first=True)
        self.inner = nn.TransformerDecoder(layer, 1)

    def forward(self, x: Any, memory: Any) -> Any:
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
        return self.inner(x, memory, tgt_mask=mask)


def test_a_decoder_with_a_mask() -> None:
    check(torch_model.load(Decoder(), (torch.randn(1, 3, 8), torch.randn(1, 4, 8)), ["ONNX"]))


def test_an_encoder_with_another_mask() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    inner = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False).eval()
    x, mask = torch.randn(1, 3, 8), torch.tensor([[0, 1, 1], [0, 0, 1], [1, 0, 0]]).bool()
    model = torch_model.load(inner, (x, mask), ["ONNX"])
    check(model, {model.inputs[0].name: x.numpy(), model.inputs[1].name: mask.numpy()})


def test_torch_is_left_as_it_was() -> None:
    layers = nn.modules.transformer
    looking = layers._detect_is_causal_mask
    with traceable(), traceable():
        assert layers._detect_is_causal_mask is not looking
    assert layers._detect_is_causal_mask is looking


def test_inputs_that_torch_refuses_are_said() -> None:
    """Offsets of bags begin with 0, which random ones do not."""
    layer = nn.EmbeddingBag(5, 2)
    model = torch_model.load(layer, (torch.tensor([1, 2]), torch.tensor([0, 1])), ["ONNX"])
    names = [spec.name for spec in model.inputs]
    ones = np.ones(2, np.int64)
    with pytest.raises(InputError, match=r"torch rejects .*give some with calibration="):
        model.reference(dict.fromkeys(names, ones))


def test_branches_that_close_over_a_tensor() -> None:
    """Dynamo traces branches, and breaks off where a mode is around it."""

    class Branches(nn.Module):
        def forward(self, condition: Any, x: Any) -> Any:
            def plus(y: Any) -> Any:
                return y + x

            def minus(y: Any) -> Any:
                return y - 2 * x

            return torch.cond(condition, plus, minus, [x + 1])

    model = torch_model.load(Branches(), (torch.tensor(True), torch.randn(3)), ["ONNX"])
    check(model, {model.inputs[0].name: np.array(False), model.inputs[1].name: np.ones(3, "f")})
