"""Model files that mean harm, or are damaged."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
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


def _external(location: str) -> Callable[[], Any]:
    def made() -> Any:
        model = _outside()
        model.graph.initializer[0].external_data[0].value = location
        return model

    return made


def _huge_shape() -> Any:
    nodes = [node("Reshape", "x s", "r"), node("Neg", "r", "y")]
    return build(nodes, [("x", FLOAT, (1,))], [("y", FLOAT, None)], {"s": np.array([2**40])})


def _huge(operator: str) -> Callable[[], Any]:
    """A tensor repeated or spread until it is huge, then made small again."""

    def made() -> Any:
        nodes = [node(operator, "x s", "t"), node("ReduceSum", "t", "y", keepdims=0)]
        sizes = {"s": np.array([2**20, 2**20])}
        return build(nodes, [("x", FLOAT, (1, 1))], [("y", FLOAT, None)], sizes)

    return made


def _huge_pad() -> Any:
    nodes = [node("Pad", "x p", "t"), node("ReduceSum", "t", "y", keepdims=0)]
    pads = {"p": np.array([2**40, 0])}
    return build(nodes, [("x", FLOAT, (1,))], [("y", FLOAT, None)], pads)


def _doubling() -> Any:
    """Forty functions, each of which calls the one before twice."""
    imports = [helper.make_opsetid("", 20), helper.make_opsetid("own", 1)]
    model = build(
        [helper.make_node("F40", ["x"], ["y"], domain="own")],
        [("x", FLOAT, (2,))],
        [("y", FLOAT, None)],
        opset_imports=imports,
    )
    for level in range(41):
        call = {"op_type": f"F{level - 1}", "domain": "own"} if level else {"op_type": "Neg"}
        body = [helper.make_node(inputs=[a], outputs=[b], **call) for a, b in ("xt", "ty")]
        model.functions.append(
            helper.make_function("own", f"F{level}", ["x"], ["y"], body, imports)
        )
    return model


def _counting(count: int, body: Any, names: tuple[str, str]) -> list[Any]:
    """A loop of so many turns whose state goes through a body."""
    state, result = names
    condition = helper.make_tensor_value_info(f"go_{result}", TensorProto.BOOL, ())
    turn = helper.make_tensor_value_info(f"turn_{result}", TensorProto.INT64, ())
    given = helper.make_tensor_value_info(f"in_{result}", FLOAT, (2,))
    out = helper.make_tensor_value_info(f"out_{result}", FLOAT, (2,))
    same = helper.make_tensor_value_info(f"same_{result}", TensorProto.BOOL, ())
    nodes = [
        node("Identity", f"go_{result}", f"same_{result}"),
        *body(f"in_{result}", f"out_{result}"),
    ]
    graph = helper.make_graph(nodes, "turn", [turn, condition, given], [same, out])
    trips = numpy_helper.from_array(np.array(count))
    return [
        node("Constant", "", f"trips_{result}", value=trips),
        helper.make_node("Loop", [f"trips_{result}", "", state], [result], body=graph),
    ]


def _deep_loop() -> Any:
    """Loops in loops, each of a thousand turns."""

    def inner(depth: int) -> Callable[[str, str], list[Any]]:
        if not depth:
            return lambda state, result: [node("Neg", state, result)]
        return lambda state, result: _counting(1000, inner(depth - 1), (state, result))

    return build(inner(4)("x", "y"), [("x", FLOAT, (2,))], [("y", FLOAT, None)])


def _long_loop() -> Any:
    def body(state: str, result: str) -> list[Any]:
        return [node("Neg", state, result)]

    return build(_counting(2**40, body, ("x", "y")), [("x", FLOAT, (2,))], [("y", FLOAT, None)])


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
    "data at an absolute path": _external("/etc/passwd"),
    "data beside": _external("../model.onnx"),
    "huge shape": _huge_shape,
    "huge Expand": _huge("Expand"),
    "huge Tile": _huge("Tile"),
    "huge Pad": _huge_pad,
    "doubling functions": _doubling,
    "loops in loops": _deep_loop,
    "a long loop": _long_loop,
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
