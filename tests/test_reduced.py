"""How far weights, and rows, of 8 bits may take a network, by the number of its products."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx_models import FLOAT, build, node

from hybridc.compiler import driver
from hybridc.compiler.assurance import verify
from hybridc.compiler.assurance.recheck import recheck
from hybridc.compiler.assurance.reduced import REDUCED, reduced
from hybridc.compiler.assurance.verify import How
from hybridc.compiler.errors import ArtifactError, WrongAnswerError
from hybridc.compiler.model import Array
from hybridc.compiler.quantization import group_quantization

WIDTH, INNER = 128, 256
Read = Callable[[Array], Array]  # what a product reads of its rows
Block = Sequence[Array]  # the gate, what it lets through, and the way back


def blocks(count: int) -> list[Block]:
    draw = np.random.default_rng(0)

    def weight(*shape: int) -> Array:
        return (draw.standard_normal(shape) / shape[0] ** 0.5).astype(np.float32)

    return [
        [weight(WIDTH, INNER), weight(WIDTH, INNER), weight(INNER, WIDTH)] for _ in range(count)
    ]


def rounded(network: Sequence[Block]) -> list[Block]:
    """The network with weights of 8 bits."""
    return [
        [group_quantization.quantize(each, 8, 128).dequantized() for each in block]
        for block in network
    ]


def branch(block: Block, x: Array, read: Read) -> Array:
    normal = read(x / np.sqrt((x**2).mean(-1, keepdims=True)))
    gate, value, back = block
    opened = normal @ gate
    return read(opened / (1 + np.exp(-opened)) * (normal @ value)) @ back


def answer(network: Sequence[Block], x: Array, read: Read = lambda rows: rows) -> Array:
    for block in network:
        x = x + branch(block, x, read)
    return x


def in_bytes(rows: Array) -> Array:
    """Rows in 255 steps from end to end, 0 among them."""
    low, high = (np.minimum(rows.min(-1), 0), np.maximum(rows.max(-1), 0))
    step = np.maximum(high - low, 1e-9)[:, None] / 255
    zero = np.round(-low[:, None] / step)
    return (np.clip(np.round(rows / step) + zero, 0, 255) - zero) * step


def inputs() -> Array:
    return np.random.default_rng(1).standard_normal((4, WIDTH)).astype(np.float32)


@pytest.mark.parametrize("precision", REDUCED)
def test_no_limit_is_less_than_for_few_products_nor_endless(precision: str) -> None:
    few, many, most = (reduced(precision, count) for count in (50, 113, 10**6))
    assert few == reduced(precision) == REDUCED[precision].after(1)
    assert few is not None
    assert many is not None
    assert most is not None
    growth = {"int8-weights": (113 / 50) ** 0.5, "int8-dynamic": 1.3}.get(precision, 1.0)
    assert many.share == pytest.approx(few.share * growth)
    assert 1 - many.cosine == pytest.approx((1 - few.cosine) * growth**2)
    assert most.share <= 2 * few.share
    assert 1 - most.cosine <= 4 * (1 - few.cosine) * 1.0001


def faulty(network: Sequence[Block]) -> Iterator[list[Block]]:
    """The network with one product that is wrong, in turns where and how."""
    for at in (0, len(network) // 2, len(network) - 1):
        for place in range(3):
            right = network[at][place]
            for wrong in (np.zeros_like(right), np.roll(right, 1, axis=1), right[::-1]):
                block = [wrong if i == place else each for i, each in enumerate(network[at])]
                yield [*network[:at], block, *network[at + 1 :]]


@pytest.mark.parametrize(
    ("precision", "depth"),
    [
        *(("int8-weights", depth) for depth in (5, 40, 80)),
        *(("int8-dynamic", depth) for depth in (5, 38, 66)),
    ],
)
def test_one_wrong_product_of_many_is_seen(precision: str, depth: int) -> None:
    network, x = blocks(depth), inputs()
    read: Read = in_bytes if precision == "int8-dynamic" else lambda rows: rows
    wanted, stored = answer(network, x), rounded(network)
    how = How(precision=precision, products=3 * depth)
    assert verify.compare("y", wanted, answer(stored, x, read), how).ok
    for wrong in faulty(stored):
        assert not verify.compare("y", wanted, answer(wrong, x, read), how).ok


def deep(count: int, width: int = 64) -> Any:
    """An ONNX model of products in a row, none of which lets an error fade."""
    draw = np.random.default_rng(0)
    constants: dict[str, Array] = {"gain": np.ones(width, np.float32)}
    nodes, last = [], "x"
    for i in range(count):
        turn, _ = np.linalg.qr(draw.standard_normal((width, width)))
        constants[f"w{i}"] = turn.astype(np.float32)
        nodes.append(node("MatMul", f"{last} w{i}", f"p{i}"))
        nodes.append(node("LayerNormalization", f"p{i} gain", f"y{i}", axis=-1))
        last = f"y{i}"
    shape = (1, width)
    return build(nodes, [("x", FLOAT, shape)], [(last, FLOAT, shape)], constants)


def test_a_deep_network_is_verified_and_verified_again(tmp_path: Path) -> None:
    onnx.save(deep(113), tmp_path / "deep.onnx")
    made = driver.compile(tmp_path / "deep.onnx", dtype="int8-weights")
    assert made.certificate["products"] == 113
    assert recheck(made, tmp_path / "deep.onnx").holds
    shallow = replace(made, certificate={**made.certificate, "products": 50})
    with pytest.raises(WrongAnswerError, match="int8-weights may be too coarse"):
        recheck(shallow, tmp_path / "deep.onnx")
    strange = replace(made, certificate={**made.certificate, "products": "many"})
    with pytest.raises(ArtifactError, match="holds no products that are known"):
        recheck(strange)
