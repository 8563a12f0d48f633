"""Small networks with an operator in the middle that only ONNX Runtime computes."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from onnx import TensorProto, helper
from onnx_models import FLOAT, INT64, build, node, noise

SHAPE = (1, 4, 8, 8)
Middle = Callable[[], tuple[list[Any], dict[str, Any]]]


def _value(name: str, kind: int = FLOAT, shape: Any = SHAPE) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def _if() -> tuple[list[Any], dict[str, Any]]:
    """Branches that read what lies around them; the condition depends on the data."""
    nodes = [node("Det", "h", "d"), node("Reshape", "d rows", "r"), node("Add", "h r", "t")]
    then = helper.make_graph(nodes, "then", [], [_value("t")])
    other = helper.make_graph([node("Mul", "h half", "e")], "else", [], [_value("e")])
    return [
        node("ReduceMean", "h", "mean", keepdims=0),
        node("Greater", "mean zero", "cond"),
        node("If", "cond", "g", then_branch=then, else_branch=other),
    ], {"half": np.float32(0.5), "zero": np.float32(0), "rows": np.array([1, 4, 1, 1])}


def _loop() -> tuple[list[Any], dict[str, Any]]:
    """As many rounds as the data says; reads a constant and a value from outside."""
    body = helper.make_graph(
        [node("Mul", "v half", "a"), node("Add", "a h", "b"), node("Identity", "go", "on")],
        "body",
        [_value("i", INT64, []), _value("go", TensorProto.BOOL, []), _value("v")],
        [_value("on", TensorProto.BOOL, []), _value("b")],
    )
    return [
        node("NonZero", "h", "places"),
        node("Size", "places", "size"),
        node("Mod", "size four", "trips"),
        node("Loop", "trips yes h", "r", body=body),
        node("Reshape", "r shape", "g"),
    ], {
        "half": np.float32(0.5),
        "four": np.int64(4),
        "yes": np.array(True),
        "shape": np.array(SHAPE),
    }


def _scan() -> tuple[list[Any], dict[str, Any]]:
    body = helper.make_graph(
        [node("Add", "s x1", "t"), node("Identity", "t", "u")],
        "body",
        [_value("s", shape=[8, 8]), _value("x1", shape=[8, 8])],
        [_value("t", shape=[8, 8]), _value("u", shape=[8, 8])],
    )
    return [
        node("Reshape", "h rows", "r"),
        node("Scan", "zeros r", "last all", body=body, num_scan_inputs=1),
        node("Reshape", "all shape", "g"),
    ], {
        "zeros": np.zeros((8, 8), np.float32),
        "rows": np.array([4, 8, 8]),
        "shape": np.array(SHAPE),
    }


def _lstm() -> tuple[list[Any], dict[str, Any]]:
    return [
        node("Reshape", "h steps", "r"),
        node("LSTM", "r w rr", "l", hidden_size=16, direction="bidirectional"),
        node("Reshape", "l shape", "g"),
    ], {
        "steps": np.array([8, 1, 32]),
        "w": noise(2, 64, 32),
        "rr": noise(2, 64, 16),
        "shape": np.array(SHAPE),
    }


def _unique() -> tuple[list[Any], dict[str, Any]]:
    return [
        node("Flatten", "h", "flat"),
        node("Round", "flat", "whole"),
        node("Unique", "whole", "u first inverse counts"),
        node("Gather", "u inverse", "back"),
        node("Reshape", "back shape", "g"),
    ], {"shape": np.array(SHAPE)}


def _boxes() -> tuple[list[Any], dict[str, Any]]:
    """Of how many boxes are left, only the number is used."""
    return [
        node("Reshape", "h corners", "b"),
        node("Reshape", "h scored", "all"),
        node("ReduceMax", "all corner", "s", keepdims=0),
        node("NonMaxSuppression", "b s most", "kept"),
        node("Shape", "kept", "n"),
        node("Cast", "n", "f", to=FLOAT),
        node("ReduceMax", "f", "m", keepdims=0),
        node("Add", "h m", "g"),
    ], {
        "corners": np.array([1, 64, 4]),
        "scored": np.array([1, 1, 64, 4]),
        "most": np.array([9]),
        "corner": np.array([3]),
    }


def _sequence() -> tuple[list[Any], dict[str, Any]]:
    return [
        node("SplitToSequence", "h", "parts", axis=1),
        node("SequenceAt", "parts one", "second"),
        node("SequenceInsert", "parts second", "five"),
        node("ConcatFromSequence", "five", "c", axis=1),
        node("Slice", "c from to channels", "d"),
        node("Reshape", "d shape", "g"),
    ], {
        "one": np.int64(1),
        "from": np.array([1]),
        "to": np.array([5]),
        "channels": np.array([1]),
        "shape": np.array(SHAPE),
    }


def _optional() -> tuple[list[Any], dict[str, Any]]:
    return [node("Optional", "h", "o"), node("OptionalGetElement", "o", "g")], {}


def _trees() -> tuple[list[Any], dict[str, Any]]:
    """One tree with one split."""
    nodes: dict[str, Any] = {
        "nodes_featureids": [1, 0, 0],
        "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF"],
        "nodes_nodeids": [0, 1, 2],
        "nodes_treeids": [0, 0, 0],
        "nodes_truenodeids": [1, 0, 0],
        "nodes_falsenodeids": [2, 0, 0],
        "nodes_values": [0.3, 0.0, 0.0],
    }
    leaves: dict[str, Any] = {
        "target_ids": [0, 0],
        "target_nodeids": [1, 2],
        "target_treeids": [0, 0],
        "target_weights": [2.0, -1.0],
    }
    tree = helper.make_node(
        "TreeEnsembleRegressor", ["r"], ["t"], domain="ai.onnx.ml", n_targets=1, **nodes, **leaves
    )
    return [
        node("Reshape", "h rows", "r"),
        tree,
        node("Reshape", "t image", "i"),
        node("Mul", "h i", "g"),
    ], {"rows": np.array([64, 4]), "image": np.array([1, 1, 8, 8])}


def _det() -> tuple[list[Any], dict[str, Any]]:
    return [
        node("Det", "h", "d"),
        node("Tanh", "d", "t"),
        node("Reshape", "t rows", "r"),
        node("Add", "h r", "g"),
    ], {"rows": np.array([1, 4, 1, 1])}


def _deformed() -> tuple[list[Any], dict[str, Any]]:
    return [node("DeformConv", "h dw offset", "g", kernel_shape=[1, 1])], {
        "dw": noise(4, 4, 1, 1),
        "offset": noise(1, 2, 8, 8),
    }


def _words() -> tuple[list[Any], dict[str, Any]]:
    """Counts of numbers as words."""
    return [
        node("Cast", "h", "whole", to=INT64),
        node("Reshape", "whole line", "l"),
        node(
            "TfIdfVectorizer",
            "l",
            "counts",
            mode="TF",
            min_gram_length=1,
            max_gram_length=1,
            max_skip_count=0,
            ngram_counts=[0],
            ngram_indexes=[0, 1, 2, 3],
            pool_int64s=[0, 1, 2, 3],
        ),
        node("Reshape", "counts rows", "c"),
        node("Add", "h c", "g"),
    ], {"line": np.array([256]), "rows": np.array([1, 4, 1, 1])}


MIDDLES: Mapping[str, Middle] = MappingProxyType(
    {
        "If": _if,
        "Loop": _loop,
        "Scan": _scan,
        "LSTM": _lstm,
        "Unique": _unique,
        "NonMaxSuppression": _boxes,
        "SplitToSequence": _sequence,
        "Optional": _optional,
        "TreeEnsembleRegressor": _trees,
        "Det": _det,
        "DeformConv": _deformed,
        "TfIdfVectorizer": _words,
    }
)


def network(*middles: str, **options: Any) -> Any:
    """Convolutions with these operators between them."""
    constants: dict[str, Any] = {"k0": noise(4, 3, 3, 3)}
    nodes = [node("Conv", "x k0", "c0", pads=[1, 1, 1, 1]), node("Relu", "c0", "h0")]
    for index, name in enumerate(middles):
        inner, values = MIDDLES[name]()
        made = [_renamed(each, index) for each in inner]
        constants |= {_name(key, index): value for key, value in values.items()}
        constants[f"k{index + 1}"] = noise(4, 4, 3, 3) / 6
        nodes += [
            *made,
            node("Conv", f"g{index} k{index + 1}", f"c{index + 1}", pads=[1, 1, 1, 1]),
            node("Relu", f"c{index + 1}", f"h{index + 1}"),
        ]
    last = len(middles)
    constants["image"] = np.array([2, 3])
    nodes.append(node("ReduceMean", f"h{last} image", "y", keepdims=0))
    domains = [helper.make_opsetid("", 19), helper.make_opsetid("ai.onnx.ml", 3)]
    return build(
        nodes,
        [("x", FLOAT, [1, 3, 8, 8])],
        [("y", FLOAT, None)],
        constants,
        opset_imports=domains,
        **options,
    )


def _name(name: str, index: int) -> str:
    return f"{name}{index}" if name in ("h", "g") else f"m{index}/{name}"


def _renamed(given: Any, index: int) -> Any:
    """The node with names of its own, in its subgraphs too."""
    made = type(given)()
    made.CopyFrom(given)
    made.input[:] = [_name(name, index) if name else "" for name in made.input]
    made.output[:] = [_name(name, index) for name in made.output]
    for attribute in made.attribute:
        if attribute.HasField("g"):
            graph = attribute.g
            inner = [_renamed(each, index) for each in graph.node]
            del graph.node[:]
            graph.node.extend(inner)
            for value in [*graph.input, *graph.output]:
                value.name = _name(value.name, index)
    return made
