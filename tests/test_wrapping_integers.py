"""Integers that overflow within one kernel, where a compiler might conclude that they cannot."""

from typing import Any

import numpy as np
import pytest
from onnx import helper
from onnx_models import BOOL, build, node

from hybridc.compiler import driver
from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.runtime.session import InferenceSession

KINDS = ("int8", "int32", "int64", "uint8", "uint32", "uint64")
SIZES = (1, 7, 64)  # scalars, and vectors with a rest


def edges(dtype: str, size: int) -> Any:
    """Both ends of the range, and what lies between them."""
    limits = np.iinfo(dtype)
    draw = np.random.default_rng(size)
    x = draw.integers(limits.min, limits.max, size, dtype=dtype, endpoint=True)
    ends = np.array([limits.max, limits.min, limits.max - 1, limits.min + 1], dtype)
    x[: min(size, 4)] = ends[: min(size, 4)]
    return x


@pytest.mark.parametrize("pipeline", ["default", "minimal"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", KINDS)
def test_what_follows_from_a_sum_that_wraps(dtype: str, size: int, pipeline: str) -> None:
    if pipeline == "minimal" and size != 7:
        pytest.skip("one size is enough")
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    nodes = [
        node("Add", "x one", "more"),
        node("Greater", "more x", "rose"),
        node("Sub", "x y", "less"),
        node("Less", "less x", "fell"),
        node("Mul", "x three", "thrice"),
        node("Div", "thrice three", "back"),
        node("Equal", "back x", "same"),
        node("Add", "x y", "sum"),
        node("Sub", "sum y", "again"),
        node("Mul", "x y", "product"),
        node("Cast", "sum", "wide", to=helper.np_dtype_to_tensor_dtype(np.dtype("int64"))),
    ]
    kinds = {
        "rose": BOOL, "fell": BOOL, "same": BOOL, "again": kind, "product": kind, "wide": 7,
        "back": kind,
    }  # fmt: skip
    model = build(
        nodes,
        [("x", kind, (size,)), ("y", kind, (size,))],
        [(name, each, None) for name, each in kinds.items()],
        {"one": np.array(1, dtype), "three": np.array(3, dtype)},
    )
    outcome = driver.compile_source(model, Options(verify="off", threads=1, pipeline=pipeline))
    x, y = edges(dtype, size), edges(dtype, size)[::-1].copy()
    got = InferenceSession(outcome.artifact, 1).run(None, {"x": x, "y": y})
    found = dict(zip(kinds, got, strict=True))
    with np.errstate(all="ignore"):
        one, three = np.array(1, dtype), np.array(3, dtype)
        thrice = x * three
        back = np.sign(thrice) * (np.abs(thrice.astype(object)) // 3)  # towards zero
        back = back.astype(dtype)
        right = {
            "rose": x + one > x,
            "fell": x - y < x,
            "same": back == x,
            "again": x,
            "product": x * y,
            "wide": (x + y).astype(np.int64),
            "back": back,
        }
    for name, value in right.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def test_sums_of_many_wrap() -> None:
    """A reduction in 32 and 64 bits."""
    for dtype in ("int32", "int64", "uint32"):
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        nodes = [node("ReduceSum", "x", "s", keepdims=0), node("MatMul", "x t", "p")]
        nodes.insert(1, node("Transpose", "x", "t"))
        model = build(nodes, [("x", kind, (5, 33))], [("s", kind, None), ("p", kind, None)])
        outcome = driver.compile_source(model, Options(verify="off", threads=1))
        x = edges(dtype, 165).reshape(5, 33)
        total, product = InferenceSession(outcome.artifact, 1).run(None, {"x": x})
        with np.errstate(all="ignore"):
            np.testing.assert_array_equal(total, x.sum(dtype=dtype))
            np.testing.assert_array_equal(product, x @ x.T)
