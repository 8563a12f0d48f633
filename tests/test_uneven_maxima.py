"""Maxima and minima of rows that are no whole number of vectors, against numpy."""

from typing import Any

import numpy as np
import pytest
from onnx import helper

import hybridc
from hybridc.compiler.model import Array

LENGTHS = (17, 31, 69, 197, 1000)
KINDS = ("float32", "float64", "float16", "int32", "int64", "uint8", "int8")


def model(kind: str) -> Any:
    """The largest and the smallest elements of rows of each length."""
    element = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    nodes: list[Any] = []
    given: list[Any] = []
    made: list[Any] = []
    for length in LENGTHS:
        given.append(helper.make_tensor_value_info(f"x{length}", element, [7, length]))
        for name in ("Max", "Min"):
            result = f"{name}{length}"
            nodes.append(
                helper.make_node(f"Reduce{name}", [f"x{length}"], [result], axes=[1], keepdims=0)
            )
            made.append(helper.make_tensor_value_info(result, element, [7]))
    graph = helper.make_graph(nodes, "maxima", given, made)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=9)


def feeds(kind: str) -> dict[str, Array]:
    """Random rows, in some of which the last elements are the largest, the smallest, or NaN."""
    rng = np.random.default_rng(0)
    drawn = {f"x{n}": rng.integers(20, 100, (7, n)).astype(kind) for n in LENGTHS}
    for rows in drawn.values():
        rows[1, -1], rows[2, -1], rows[3, -2] = 120, 1, 120
        if "float" in kind:
            rows[4, -1] = rows[5, 0] = np.nan
    return drawn


@pytest.mark.parametrize("kind", KINDS)
def test_no_element_is_left_out(kind: str) -> None:
    artifact = hybridc.compile(model(kind), verify="off", threads=1)
    feed = feeds(kind)
    results = iter(hybridc.InferenceSession(artifact, 1).run(None, feed))
    for rows in feed.values():
        np.testing.assert_array_equal(next(results), rows.max(1))
        np.testing.assert_array_equal(next(results), rows.min(1))
