"""Products of quantised activations, growing caches and tables of bytes, beside ONNX Runtime."""

from typing import Any

import numpy as np
import pytest
from onnx_models import FLOAT, build, node, noise
from test_integer_arithmetic import agree, integers, quantized


def _product(left: tuple[int, ...], right: tuple[int, ...], *, transposed: bool) -> Any:
    axes = [*range(len(right) - 2), len(right) - 1, len(right) - 2]
    constants = {
        "s": np.float32(0.021),
        "z": np.uint8(117),
        "h": np.float32(0.37),
        "t": np.float32(0.0083),
        "u": np.uint8(131),
        "o": np.float32(0.183),
    }
    nodes = [
        *quantized("x", "a"),
        *quantized("y", "b"),
        *([node("Transpose", "b", "bt", perm=axes)] if transposed else []),
        node("Mul", "bt h" if transposed else "b h", "c"),
        *quantized("c", "d", "t", "u"),
        node("MatMul", "a d", "m"),
        *quantized("m", "out", "o", "u"),
    ]
    return build(
        nodes, [("x", FLOAT, left), ("y", FLOAT, right)], [("out", FLOAT, None)], constants
    )


PRODUCTS = [
    ((1, 3, 1, 16), (1, 3, 16, 9), False),
    ((1, 3, 1, 64), (1, 3, 33, 64), True),
    ((2, 5, 1, 7), (2, 5, 3, 7), True),
    ((1, 2, 19, 33), (1, 2, 33, 17), False),
    ((1, 2, 19, 32), (1, 2, 41, 32), True),
    ((3, 9, 15), (3, 15, 64), False),
    ((6, 5), (5, 1), False),
    ((7, 1), (1, 8), False),
    ((1, 2, 3, 16), (1, 2, 16, 24), False),
    ((2, 8, 12), (12, 10), False),
]


@pytest.mark.parametrize(("left", "right", "transposed"), PRODUCTS)
def test_products_of_activations(
    left: tuple[int, ...], right: tuple[int, ...], transposed: bool
) -> None:
    feed = {"x": noise(*left), "y": noise(*right) * np.float32(2)}
    outcome = agree(_product(left, right, transposed=transposed), feed, steps=0.183)
    rules = {kernel.rule for kernel in outcome.report.kernels}
    assert "fallback" not in rules


@pytest.mark.parametrize("zero", [0, 119, 131, 137, 255])
@pytest.mark.parametrize(("rows", "depth", "columns"), [(1, 96, 70), (5, 13, 21), (40, 64, 33)])
def test_weights_that_reach_beyond_eight_bits(
    rows: int, depth: int, columns: int, zero: int
) -> None:
    constants = {
        "s": np.float32(0.021),
        "z": np.uint8(93),
        "w": integers(0, 256, depth, columns, dtype="uint8"),
        "ws": np.float32(0.0101),
        "wz": np.uint8(zero),
        "b": noise(columns),
        "t": np.float32(0.31),
    }
    nodes = [
        *quantized("x", "a"),
        node("DequantizeLinear", "w ws wz", "v"),
        node("MatMul", "a v", "m"),
        node("Add", "m b", "n"),
        *quantized("n", "y", "t", "z"),
    ]
    model = build(nodes, [("x", FLOAT, (rows, depth))], [("y", FLOAT, None)], constants)
    agree(model, {"x": noise(rows, depth)}, steps=0.31)


def test_a_cache_grows_by_a_row_that_alone_is_quantised_again() -> None:
    constants = {
        "s": np.float32(0.021),
        "z": np.uint8(117),
        "t": np.float32(0.0133),
        "u": np.uint8(99),
    }
    nodes = [
        *quantized("past", "p"),
        *quantized("new", "n", "t", "u"),
        node("Concat", "p n", "j", axis=2),
        *quantized("j", "y"),
    ]
    inputs = [("past", FLOAT, (1, 3, 17, 8)), ("new", FLOAT, (1, 3, 1, 8))]
    model = build(nodes, inputs, [("y", FLOAT, None)], constants)
    feed = {"past": noise(1, 3, 17, 8), "new": noise(1, 3, 1, 8)}
    agree(model, feed, steps=0.021)


@pytest.mark.parametrize("name", ["Erf", "Sigmoid", "Tanh", "Exp"])
def test_functions_of_bytes(name: str) -> None:
    """Among them GELU in pieces, each of which is quantised."""
    constants = {
        "s": np.float32(0.0311),
        "z": np.uint8(117),
        "t": np.float32(0.0227),
        "u": np.uint8(47),
        "r": np.float32(1.41421),
        "one": np.float32(1),
    }
    nodes = [
        *quantized("x", "a"),
        node("Div", "a r", "b"),
        node(name, "b", "c"),
        *quantized("c", "d", "t", "u"),
        node("Add", "d one", "e"),
        *quantized("e", "f", "t", "u"),
        node("Mul", "a f", "g"),
        *quantized("g", "y", "t", "u"),
    ]
    model = build(nodes, [("x", FLOAT, (1, 29, 17))], [("y", FLOAT, None)], constants)
    outcome = agree(model, {"x": noise(1, 29, 17) * np.float32(2)}, steps=0.0227)
    assert not any(name.lower() in kernel.kernel for kernel in outcome.report.kernels)
