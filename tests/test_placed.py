"""MaxUnpool by places among zeros, against numpy."""

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

import hybridc


@pytest.mark.parametrize("shape", [(1, 3, 13, 13), (2, 5, 1, 1), (3, 7, 9, 8), (0, 2, 3, 3)])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
def test_elements_stand_where_pooling_found_them(shape: tuple[int, ...], dtype: Any) -> None:
    """Each in its window, with NaN and infinity among them."""
    batch, channels, height, width = shape
    rng = np.random.default_rng(0)
    x = rng.standard_normal(shape).astype(dtype)
    x[..., 0, 0], x[..., -1, -1] = np.nan, np.inf
    planes = np.arange(batch * channels).reshape(batch, channels, 1, 1) * 4 * height * width
    rows = np.arange(height)[:, None] * 2 + rng.integers(0, 2, shape)
    places = planes + rows * 2 * width + np.arange(width) * 2 + rng.integers(0, 2, shape)
    wanted = np.zeros((batch, channels, 2 * height, 2 * width), dtype)
    wanted.ravel()[places.ravel()] = x.ravel()
    node = helper.make_node("MaxUnpool", ["x", "i"], ["y"], kernel_shape=[2, 2], strides=[2, 2])
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    given = [
        helper.make_tensor_value_info("x", kind, shape),
        helper.make_tensor_value_info("i", TensorProto.INT64, shape),
    ]
    made = helper.make_tensor_value_info("y", kind, wanted.shape)
    graph = helper.make_graph([node], "unpooled", given, [made])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    artifact = hybridc.compile(model, verify="off", threads=1)
    (got,) = hybridc.InferenceSession(artifact, 1).run(None, {"x": x, "i": places})
    np.testing.assert_array_equal(got, wanted)


def test_no_place_is_outside() -> None:
    """A negative one counts from the end; what is too far is the first or the last."""
    node = helper.make_node("MaxUnpool", ["x", "i"], ["y"], kernel_shape=[2], strides=[2])
    given = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 4]),
        helper.make_tensor_value_info("i", TensorProto.INT64, [1, 1, 4]),
    ]
    made = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1, 8])
    graph = helper.make_graph([node], "unpooled", given, [made])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    artifact = hybridc.compile(model, verify="off", threads=1)
    x = np.array([[[1, 2, 3, 4]]], np.float32)
    places = np.array([[[-2, 3, 2**40, -(2**40)]]])
    (got,) = hybridc.InferenceSession(artifact, 1).run(None, {"x": x, "i": places})
    np.testing.assert_array_equal(got, [[[4, 0, 0, 2, 0, 0, 1, 3]]])
