"""Operators as opsets before 7 have them, beside numpy."""

from typing import Any

import numpy as np
import pytest
from onnx import helper
from onnx_models import BOOL, FLOAT, build, check, node, noise

from hybridc.compiler.errors import ModelError
from hybridc.compiler.frontend import load

X = noise(4, 4, 4, 3)


def imported(nodes: list[Any], constants: dict[str, Any], opset: int, made: int = FLOAT) -> Any:
    """What `y` is of X, which the reference has to say too."""
    inputs = [("x", FLOAT, X.shape)]
    inputs += [(k, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape) for k, v in constants.items()]
    model = build(nodes, inputs, [("y", made, None)], constants, opset=opset, ir_version=3)
    (result,) = check(load(model), {"x": X})
    return result


# Sizes are alike, so that an operand in the wrong place would do.
@pytest.mark.parametrize("opset", [1, 6])
@pytest.mark.parametrize(
    ("operator", "function"),
    [("Add", np.add), ("Div", np.divide), ("Less", np.less), ("Mul", np.multiply)],
)
@pytest.mark.parametrize(("axis", "shape"), [(1, (4,)), (0, (4, 4)), (-2, (4,)), (1, (4, 4))])
def test_an_axis_aligns_operands(
    opset: int, operator: str, function: Any, axis: int, shape: tuple[int, ...]
) -> None:
    c = noise(*shape)
    nodes = [node(operator, "x c", "y", broadcast=1, axis=axis)]
    got = imported(nodes, {"c": c}, opset, BOOL if operator == "Less" else FLOAT)
    whole = c.reshape(shape + (1,) * (4 - axis % 4 - len(shape)))
    np.testing.assert_allclose(got, function(X, whole), 1e-5)


def test_operands_that_are_constant_are_aligned_too() -> None:
    a, b = noise(4, 4), noise(4)
    nodes = [node("Sub", "a b", "c", broadcast=1, axis=0), node("Pow", "c two", "d", broadcast=1)]
    nodes.append(node("Add", "x d", "y", broadcast=1, axis=0))
    got = imported(nodes, {"a": a, "b": b, "two": np.float32(2)}, 6)
    np.testing.assert_allclose(got, X + ((a - b[:, None]) ** 2)[:, :, None, None], 1e-4)


def test_an_axis_beyond_the_operand_is_refused() -> None:
    inputs = [("x", FLOAT, (2, 3)), ("c", FLOAT, (2, 3))]
    nodes = [node("Add", "x c", "y", broadcast=1, axis=1)]
    with pytest.raises(ModelError, match=r"'Add'.* axis=1 for operands of 2 and 2 axes"):
        load(build(nodes, inputs, [("y", FLOAT, (2, 3))], opset=6, ir_version=3))


def test_parts_are_joined_along_the_second_axis() -> None:
    got = imported([node("Concat", "x x", "y")], {}, 3)
    np.testing.assert_array_equal(got, np.concatenate([X, X], 1))


def test_a_tensor_is_repeated_along_one_axis() -> None:
    numbers = {name: np.array([n], np.float32) for name, n in (("n", 3), ("a", 2))}
    got = imported([node("Tile", "x n a", "y")], numbers, 5)
    np.testing.assert_array_equal(got, np.tile(X, (1, 1, 3, 1)))


def test_sizes_are_an_attribute_and_types_are_text() -> None:
    nodes = [node("Reshape", "x", "t", shape=[4, -1]), node("Cast", "t", "y", to="FLOAT")]
    np.testing.assert_array_equal(imported(nodes, {}, 4), X.reshape(4, -1))
