"""Operators are imported, expanded, or refused by name; the oracle is ONNX Runtime."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onnx import helper
from onnx_models import BOOL, FLOAT, INT64, build, check, node, noise, relu

from hybridc.compiler.errors import ModelError
from hybridc.compiler.frontend import load


def test_unsupported_operators_are_named_and_counted() -> None:
    nodes = [node("LSTM", "x w r", "a", name="lstm_1", hidden_size=2)]
    nodes += [node("GRU", "x w r", f"g{i}", hidden_size=2) for i in range(3)]
    nodes += [node("Det", "q", "d")]
    model = build(
        nodes,
        [
            ("x", FLOAT, [1, 1, 2]),
            ("w", FLOAT, [1, 8, 2]),
            ("r", FLOAT, [1, 8, 2]),
            ("q", FLOAT, [2, 2]),
        ],
        [(name, FLOAT, None) for name in ("a", "g0", "g1", "g2", "d")],
    )
    message = r"operator 'LSTM' \(node 'lstm_1'\) is not supported; 2 others: GRU x3, Det x1$"
    with pytest.raises(ModelError, match=message):
        load(model)


def test_operators_that_onnx_does_not_know() -> None:
    model = build([node("Frobnicate", "x", "y")], [("x", FLOAT, [1])], [("y", FLOAT, [1])])
    with pytest.raises(ModelError, match=r"operator 'Frobnicate' \(node computing 'y'\) is not"):
        load(model)


def test_operators_of_other_domains_are_not_taken_for_standard_ones() -> None:
    model = build(
        [node("Relu", "x", "y", domain="my.own")],
        [("x", FLOAT, [1])],
        [("y", FLOAT, [1])],
        opset_imports=[helper.make_opsetid("", 20), helper.make_opsetid("my.own", 1)],
    )
    with pytest.raises(ModelError, match=r"operator 'Relu' .* is not supported"):
        load(model)


EXPANDED: list[tuple[str, Callable[[], Any]]] = [
    (
        "attention",
        lambda: build(
            [node("Attention", "q k v", "y")],
            [("q", FLOAT, [1, 2, 4, 8]), ("k", FLOAT, [1, 2, 6, 8]), ("v", FLOAT, [1, 2, 6, 8])],
            [("y", FLOAT, None)],
            opset=23,
        ),
    ),
    (
        "layer norm statistics",
        lambda: build(
            [node("LayerNormalization", "x s b", "y m i")],
            [("x", FLOAT, [2, 3, 4])],
            [("y", FLOAT, None), ("m", FLOAT, None), ("i", FLOAT, None)],
            {"s": noise(4), "b": noise(4)},
        ),
    ),
    (
        "rms norm of two axes",
        lambda: build(
            [node("RMSNormalization", "x s", "y", axis=1)],
            [("x", FLOAT, [2, 3, 4])],
            [("y", FLOAT, None)],
            {"s": noise(3, 4)},
            opset=23,
        ),
    ),
    (
        "celu by default",
        lambda: build([node("Celu", "x", "y")], [("x", FLOAT, [3])], [("y", FLOAT, None)]),
    ),
    (
        "celu",
        lambda: build(
            [node("Celu", "x", "y", alpha=2.0)], [("x", FLOAT, [3])], [("y", FLOAT, None)]
        ),
    ),
    (
        "swish",
        lambda: build(
            [node("Swish", "x", "y")], [("x", FLOAT, [3])], [("y", FLOAT, None)], opset=24
        ),
    ),
    (
        "loss",
        lambda: build(
            [node("SoftmaxCrossEntropyLoss", "x l", "y")],
            [("x", FLOAT, [2, 3]), ("l", INT64, [2])],
            [("y", FLOAT, None)],
            opset=13,
        ),
    ),
    (
        "rotary embedding",
        lambda: build(
            [node("RotaryEmbedding", "x c s p", "y")],
            [("x", FLOAT, [2, 3, 4, 8]), ("p", INT64, [2, 4])],
            [("y", FLOAT, None)],
            {"c": noise(50, 4), "s": noise(50, 4)},
            opset=23,
        ),
    ),
]


@pytest.mark.parametrize("make", [make for _, make in EXPANDED], ids=[name for name, _ in EXPANDED])
def test_operators_defined_by_others_are_expanded(make: Callable[[], Any]) -> None:
    check(load(make()))


def test_functions_of_the_model_are_inlined() -> None:
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("my", 1)]
    body = [node("Mul", "a a", "b"), node("Neg", "b", "c")]
    model = build(
        [node("NegSquare", "x", "y", domain="my")],
        [("x", FLOAT, [3])],
        [("y", FLOAT, [3])],
        opset_imports=opsets,
        functions=[helper.make_function("my", "NegSquare", ["a"], ["c"], body, opsets[:1])],
    )
    check(load(model))


def test_options_that_the_importer_ignores_are_refused() -> None:
    model = build(
        [node("IsInf", "x", "y", detect_negative=0)], [("x", FLOAT, [1])], [("y", BOOL, [1])]
    )
    with pytest.raises(ModelError, match=r"operator 'IsInf' .* with detect_negative=0"):
        load(model)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (node("BatchNormalization", "x s s s s", "y a b", training_mode=1), "training_mode=1"),
        (node("Resize", "x none scales", "y", antialias=1, mode="linear"), "antialias=1"),
    ],
)
def test_what_the_importer_computes_wrongly_is_refused(broken: Any, message: str) -> None:
    constants = {"s": noise(3), "none": noise(0), "scales": np.array([1, 1, 0.5, 0.5], np.float32)}
    model = build([broken], [("x", FLOAT, [1, 3, 4, 4])], [("y", FLOAT, None)], constants)
    with pytest.raises(ModelError, match=f"operator '{broken.op_type}' .* with {message}"):
        load(model)


def test_the_mask_of_a_dropout_is_refused_where_it_is_used() -> None:
    inputs = [("x", FLOAT, [2, 3])]
    dropout = node("Dropout", "x", "y m")
    load(build([dropout], inputs, [("y", FLOAT, None)]))
    used = build([dropout], inputs, [("y", FLOAT, None), ("m", BOOL, None)])
    with pytest.raises(ModelError, match=r"operator 'Dropout' .* with its mask as an output"):
        load(used)


def test_a_failing_import_names_its_node() -> None:
    model = build(
        [node("Relu", "x", "r"), node("TopK", "r k", "v i", name="top")],
        [("x", FLOAT, [4]), ("k", INT64, [1])],
        [("v", FLOAT, None), ("i", INT64, None)],
    )
    with pytest.raises(ModelError, match=r"operator 'TopK' \(node 'top'\) cannot be imported"):
        load(model)
    check(load(relu()))  # the failure left nothing behind
