"""Operators on constants give what they give on inputs, though ONNX's own reference does not."""

from typing import Any

import numpy as np
import pytest
from onnx_models import FLOAT, build, check, node, noise

from hybridc.compiler.frontend import load

Case = tuple[str, dict[str, Any], tuple[Any, ...]]

# Each is one for which the reference of onnx 1.23 gives other numbers or another shape.
CASES: dict[int, tuple[Case, ...]] = {
    11: (
        ("Softmax", {"axis": 1}, (noise(2, 3, 4),)),
        ("LogSoftmax", {"axis": 0}, (noise(2, 3),)),
        ("Hardmax", {"axis": 1}, (noise(2, 3, 4),)),
        ("BatchNormalization", {"epsilon": 0.5}, (noise(1, 3, 2), *[abs(noise(3))] * 4)),
        ("Unsqueeze", {"axes": [-2, -1]}, (noise(2, 3),)),
        (
            "MaxPool",
            {"auto_pad": "SAME_UPPER", "kernel_shape": [2], "strides": [3]},
            (noise(1, 1, 6),),
        ),
        (
            "LSTM",
            {"hidden_size": 1},
            (
                noise(3, 2, 1),
                noise(1, 4, 1),
                noise(1, 4, 1),
                noise(1, 8),
                np.array([3, 1], "int32"),
            ),
        ),
    ),
    18: (
        ("GlobalMaxPool", {}, (noise(2, 3, 5),)),
        ("LpNormalization", {"axis": 1, "p": 1}, (noise(2, 5),)),
        (
            "ConvTranspose",
            {"group": 3, "output_padding": [1], "strides": [2]},
            (noise(1, 3, 3), noise(3, 1, 3), noise(3)),
        ),
        (
            "Resize",
            {"coordinate_transformation_mode": "pytorch_half_pixel", "mode": "linear"},
            (noise(1, 1, 2, 3), None, np.array([1, 1, 0.5, 1], "float32")),
        ),
    ),
}


@pytest.mark.parametrize("opset", CASES)
def test_operators_on_constants(opset: int) -> None:
    nodes, outputs, constants = [], [], {}
    for place, (operator, attributes, operands) in enumerate(CASES[opset]):
        names = [f"c{place}_{i}" if array is not None else "" for i, array in enumerate(operands)]
        constants |= {name: array for name, array in zip(names, operands, strict=True) if name}
        made = node(operator, "", f"v{place}", **attributes)
        made.input.extend(names)
        nodes += [made, node("Add", f"v{place} x", f"y{place}")]
        outputs.append((f"y{place}", FLOAT, None))
    check(load(build(nodes, [("x", FLOAT, [1])], outputs, constants, opset)))
