"""ONNX models of one operator, in fp32 and with bytes quantised around it (QDQ)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

Array = Any
OPSET = 20


@dataclass(frozen=True)
class Case:
    """A model of one operator, its inputs, and the kind of operator it is."""

    name: str
    kind: str
    model: Any
    feed: Mapping[str, Array]


@dataclass(frozen=True)
class Node:
    """An operator on an input `x` and, behind it, weights (a product) or constants."""

    name: str
    op: str
    shape: tuple[int, ...]
    weights: tuple[tuple[int, ...], ...] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict[str, Any])
    constants: tuple[Array, ...] = ()
    integers: bool = True  # whether there is a QDQ form


def float_model(node: Node, seed: int) -> tuple[Any, dict[str, Array]]:
    """The operator on activations of fp32, its weights constants; and inputs for it."""
    rng = np.random.default_rng(seed)
    constants = dict(zip("wb", (_weight(shape, rng) for shape in node.weights), strict=False))
    constants |= {f"c{i}": value for i, value in enumerate(node.constants)}
    feed = {"x": (np.abs(rng.standard_normal(node.shape)) + 0.01).astype(np.float32)}
    attributes = dict(node.attributes)
    second = attributes.pop("_second", None)
    if second:
        shape = node.shape if second is True else second
        feed["y"] = rng.standard_normal(shape).astype(np.float32)
    node_proto = helper.make_node(node.op, [*feed, *constants], ["out"], **attributes)
    return _model([node_proto], constants, feed, TensorProto.FLOAT), feed


def byte_model(node: Node, seed: int) -> tuple[Any, dict[str, Array]]:
    """The operator on bytes that are dequantised before and quantised behind it; and inputs."""
    rng = np.random.default_rng(seed)
    (shape,) = node.weights
    axis = 1 if node.op == "MatMul" else 0
    bell = np.clip(np.round(rng.normal(0, 38, shape)), -127, 127).astype(np.int8)
    depth = prod(shape) // shape[axis]
    scale = np.float32(1 / 512)
    constants = {
        "w": bell,
        "ws": np.full(shape[axis], scale, np.float32),
        "wz": np.zeros(shape[axis], np.int8),
        "xs": np.float32(1 / 128),
        "xz": np.uint8(0),
        "os": np.float32(depth**0.5 / 512),
        "oz": np.uint8(128),
    }
    feed = {"x": rng.integers(0, 256, node.shape).astype(np.uint8)}
    nodes = [
        helper.make_node("DequantizeLinear", ["x", "xs", "xz"], ["xf"]),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wf"], axis=axis),
        helper.make_node(node.op, ["xf", "wf"], ["yf"], **node.attributes),
        helper.make_node("QuantizeLinear", ["yf", "os", "oz"], ["out"]),
    ]
    return _model(nodes, constants, feed, TensorProto.UINT8), feed


def _weight(shape: tuple[int, ...], rng: Any) -> Array:
    depth = max(1, prod(shape) // max(shape))
    return (rng.standard_normal(shape) / depth**0.5).astype(np.float32)


def _model(
    nodes: Sequence[Any], constants: Mapping[str, Array], feed: Mapping[str, Array], out: int
) -> Any:
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
        for name, x in feed.items()
    ]
    result = helper.make_tensor_value_info("out", out, None)
    tensors = [numpy_helper.from_array(np.asarray(x), name) for name, x in constants.items()]
    graph = helper.make_graph(nodes, "operator", inputs, [result], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
