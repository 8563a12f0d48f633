"""Whole decoders, as exporters write them for ONNX Runtime; it is the reference."""

from typing import Any

import numpy as np
import onnxruntime
import pytest
from decoders import Decoder, Sizes
from onnx_models import noise

import hybridc


@pytest.mark.slow
def test_a_decoder_with_a_past_of_any_length() -> None:
    """Tokens and logits over several steps, each with one token."""
    sizes = Sizes(layers=1)
    model = Decoder(sizes, length=1, batch=1).model()
    session = hybridc.InferenceSession(hybridc.compile(model))
    reference = onnxruntime.InferenceSession(model.SerializeToString())
    names = [value.name for value in session.get_inputs()]
    shape = (1, sizes.groups, 3, sizes.width)
    fed: dict[str, Any] = {name: noise(*shape) for name in names if name.startswith("past")}
    fed["input_ids"] = np.array([[7]], np.int64)
    for step in range(4):
        fed["attention_mask"] = np.ones((1, 4 + step), np.int64)
        got, right = session.run(None, fed), list(map(np.asarray, reference.run(None, fed)))
        for mine, other in zip(got, right, strict=True):
            np.testing.assert_allclose(mine, other, rtol=1e-3, atol=1e-4)
        assert got[0].argmax() == right[0].argmax()
        fed |= dict(zip([n for n in names if n.startswith("past")], got[1:], strict=True))
        fed["input_ids"] = got[0][:, -1:].argmax(-1)


@pytest.fixture(scope="module")
def open_decoder() -> tuple[Any, Any, Sizes]:
    """A decoder whose batch, tokens and earlier tokens are all open, beside its reference."""
    sizes = Sizes(layers=1)
    model = Decoder(sizes).model()
    session = hybridc.InferenceSession(hybridc.compile(model))
    return session, onnxruntime.InferenceSession(model.SerializeToString()), sizes


def _agree(got: list[Any], right: list[Any]) -> None:
    for mine, other in zip(got, right, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_a_decoder_of_open_sizes_compiles_as_it_is(open_decoder: tuple[Any, Any, Sizes]) -> None:
    """ONNX Runtime refuses some of the sizes at which answers are compared."""
    session, reference, sizes = open_decoder
    names = [value.name for value in session.get_inputs()]
    for batch, length, past in ((1, 5, 0), (1, 1, 0), (1, 33, 2), (3, 1, 5), (2, 6, 0)):
        shape = (batch, sizes.groups, past, sizes.width)
        fed: dict[str, Any] = {name: noise(*shape) for name in names if name.startswith("past")}
        fed["input_ids"] = np.arange(batch * length).reshape(batch, length) % sizes.words
        fed["attention_mask"] = np.ones((batch, length + past), np.int64)
        _agree(session.run(None, fed), reference.run(None, fed))


@pytest.mark.slow
def test_tokens_are_generated_from_nothing(open_decoder: tuple[Any, Any, Sizes]) -> None:
    session, reference, sizes = open_decoder
    pasts = [v.name for v in session.get_inputs() if v.name.startswith("past")]
    fed: dict[str, Any] = {n: np.zeros((1, sizes.groups, 0, sizes.width), "f4") for n in pasts}
    fed["input_ids"] = np.array([[3, 1, 4, 1, 5]], np.int64)
    for step in range(16):
        fed["attention_mask"] = np.ones((1, 5 + step), np.int64)
        got, right = session.run(None, fed), list(map(np.asarray, reference.run(None, fed)))
        _agree(got, right)
        token = got[0][:, -1:].argmax(-1)
        assert token == right[0][:, -1:].argmax(-1)
        fed = {**dict(zip(pasts, got[1:], strict=True)), "input_ids": token}
