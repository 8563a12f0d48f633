"""Model files that mean harm, or are damaged."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import TensorProto, helper
from onnx_models import FLOAT, build, node, noise


def whole() -> bytes:
    """A small model that has something of everything."""
    nodes = [
        node("Conv", "x w", "c", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        node("Relu", "c", "r"),
        node("Reshape", "r s", "f"),
        node("MatMul", "f m", "p"),
        node("Softmax", "p", "y", axis=-1),
    ]
    weights = {"w": noise(2, 1, 3, 3), "s": np.array([1, -1]), "m": noise(32, 3)}
    model = build(nodes, [("x", FLOAT, (1, 1, 4, 4))], [("y", FLOAT, (1, 3))], weights)
    return bytes(model.SerializeToString())


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """The model with some bits flipped, bytes overwritten, or its end cut off."""
    content = bytearray(whole())
    for _ in range(draw(st.integers(0, 3))):
        content[draw(st.integers(0, len(content) - 1))] ^= 1 << draw(st.integers(0, 7))
    if draw(st.booleans()):
        at = draw(st.integers(0, len(content) - 1))
        content[at : at + 9] = draw(st.binary(min_size=9, max_size=9))
    if draw(st.booleans()):
        del content[draw(st.integers(0, len(content))) :]
    return bytes(content)


def _cycle() -> Any:
    nodes = [node("Add", "x b", "a"), node("Neg", "a", "b")]
    return build(nodes, [("x", FLOAT, (2,))], [("b", FLOAT, (2,))])


def _missing() -> Any:
    return build([node("MatMul", "x w", "y")], [("x", FLOAT, (2, 2))], [("y", FLOAT, None)])


def _wrong_type() -> Any:
    model = build(
        [node("Add", "x w", "y")], [("x", FLOAT, (2,))], [("y", FLOAT, None)], {"w": np.arange(2)}
    )
    return model


def _wrong_bytes() -> Any:
    model = build(
        [node("Add", "x w", "y")], [("x", FLOAT, (2,))], [("y", FLOAT, None)], {"w": noise(2)}
    )
    model.graph.initializer[0].dims[:] = [2**40]
    return model


def _huge_input() -> Any:
    return build([node("Neg", "x", "y")], [("x", FLOAT, (2**20, 2**20))], [("y", FLOAT, None)])


def _huge_constant() -> Any:
    nodes = [node("ConstantOfShape", "s", "c"), node("Add", "x c", "y")]
    sizes = {"s": np.array([2**20, 2**20])}
    return build(nodes, [("x", FLOAT, (1,))], [("y", FLOAT, None)], sizes)


def _huge_range() -> Any:
    nodes = [node("Range", "a b c", "r"), node("Cast", "r", "f", to=1), node("Add", "x f", "y")]
    ends = {"a": np.array(0), "b": np.array(2**36), "c": np.array(1)}
    return build(nodes, [("x", FLOAT, (1,))], [("y", FLOAT, None)], ends)


def _recursion() -> Any:
    model = build(
        [helper.make_node("F", ["x"], ["y"], domain="own")],
        [("x", FLOAT, (2,))],
        [("y", FLOAT, None)],
        opset_imports=[helper.make_opsetid("", 20), helper.make_opsetid("own", 1)],
    )
    body = [helper.make_node("F", ["x"], ["y"], domain="own")]
    imports = list(model.opset_import)
    model.functions.append(helper.make_function("own", "F", ["x"], ["y"], body, imports))
    return model


def _deep() -> Any:
    """Branches in branches, 60 deep."""
    out = [helper.make_tensor_value_info("d", FLOAT, (2,))]
    graph = helper.make_graph([node("Neg", "x", "d")], "leaf", [], out)
    for _ in range(25):
        branch = node("If", "c", "d", then_branch=graph, else_branch=graph)
        graph = helper.make_graph([branch], "deep", [], out)
        if graph.ByteSize() > 2**22:
            break
    given = [("c", TensorProto.BOOL, ()), ("x", FLOAT, (2,))]
    return build(list(graph.node), given, [("d", FLOAT, None)])


def _outside() -> Any:
    model = _wrong_bytes()
    tensor = model.graph.initializer[0]
    tensor.dims[:] = [2]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../../../etc/passwd")
    return model


HOSTILE: Mapping[str, Callable[[], Any]] = {
    "cycle": _cycle,
    "missing initialiser": _missing,
    "wrong dtype": _wrong_type,
    "wrong size of an initialiser": _wrong_bytes,
    "huge input": _huge_input,
    "huge constant": _huge_constant,
    "huge range": _huge_range,
    "recursive function": _recursion,
    "deep branches": _deep,
    "data outside": _outside,
}


def written(folder: Path, name: str) -> Path:
    """A hostile model as a file."""
    path = folder / "model.onnx"
    path.write_bytes(HOSTILE[name]().SerializeToString())
    return path


def saved(folder: Path, content: bytes) -> Path:
    path = folder / "damaged.onnx"
    path.write_bytes(content)
    return path


def is_model(content: bytes) -> bool:
    """Whether onnx takes it."""
    try:
        onnx.checker.check_model(onnx.ModelProto.FromString(content))
    except Exception:
        return False
    return True
