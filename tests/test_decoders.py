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
