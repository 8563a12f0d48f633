"""Casts to bfloat16 and back, whose purpose is to round."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from onnx import TensorProto, helper
from onnx_models import build, node

import hybridc


@pytest.mark.parametrize(("given", "made"), [("float32", "float32"), ("float16", "float32")])
def test_a_cast_there_and_back_rounds(given: str, made: str) -> None:
    kinds = [helper.np_dtype_to_tensor_dtype(np.dtype(kind)) for kind in (given, made)]
    nodes = [
        node("Cast", "x", "narrow", to=TensorProto.BFLOAT16),
        node("Cast", "narrow", "wide", to=kinds[1]),
        node("Neg", "wide", "y"),
    ]
    model = build(nodes, [("x", kinds[0], (40, 7))], [("y", kinds[1], (40, 7))])
    x: Any = np.random.default_rng(0).standard_normal((40, 7)).astype(given)
    x[0, :4] = np.nan, np.inf, -np.inf, -0.0
    artifact = hybridc.compile(model, threads=1, verify="off")
    (got,) = hybridc.InferenceSession(artifact).run(None, {"x": x})
    wanted = -x.astype(np.float32).astype(ml_dtypes.bfloat16).astype(made)
    np.testing.assert_array_equal(got, wanted)
    assert (got[1:] != -x[1:]).mean() > 0.5
