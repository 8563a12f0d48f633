"""Functions that a model brings along."""

import numpy as np
import onnx
import pytest
from onnx import helper
from onnx_models import FLOAT, build, check, node

from hybridc.compiler.frontend import load


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


def test_functions_have_attributes_with_defaults() -> None:
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("my", 1)]
    slope = helper.make_attribute("slope", 0.7)
    leaky = helper.make_function(
        *("my", "Leaky", ["a"], ["b"], [node("LeakyRelu", "a", "b")], opsets[:1]),
        attribute_protos=[slope],
    )
    given = leaky.node[0].attribute.add()
    given.name, given.ref_attr_name, given.type = "alpha", "slope", onnx.AttributeProto.FLOAT
    calls = [
        node("Leaky", "x", "y", domain="my"),
        node("Leaky", "y", "z", domain="my", slope=0.1),
    ]
    ends = [("x", FLOAT, [3])], [("z", FLOAT, [3])]
    model = build(calls, *ends, opset_imports=opsets, functions=[leaky])
    check(load(model), {"x": np.array([-1.0, 0.0, 2.0], np.float32)})


@pytest.mark.parametrize(
    ("operator", "domain", "of_function"),
    [
        ("Relu", "", ""),
        ("Relu", "", "ai.onnx"),
        ("Softplus", "", ""),
        ("Gelu", "com.microsoft", "com.microsoft"),
    ],
)
def test_an_operator_is_not_replaced_by_a_function_of_its_name(
    operator: str, domain: str, of_function: str
) -> None:
    """As in ONNX Runtime."""
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    body = [node("Mul", "a a", "b")]
    model = build(
        [node(operator, "x", "y", domain=domain)],
        [("x", FLOAT, [3])],
        [("y", FLOAT, [3])],
        opset_imports=opsets,
        functions=[helper.make_function(of_function, operator, ["a"], ["b"], body, opsets[:1])],
    )
    check(load(model), {"x": np.array([-1.0, 0.0, 2.0], np.float32)})
