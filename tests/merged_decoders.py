"""Decoders as exporters merge them: an input chooses the graph with, or without, earlier tokens."""

from typing import Any

import numpy as np
from onnx import helper, numpy_helper
from onnx_models import BOOL, FLOAT, noise

WIDTH = 4
SWITCH = "use_cache_branch"


class _Branch:
    """The nodes of one graph, whose values have a prefix of their own."""

    def __init__(self, name: str) -> None:
        self.name, self.nodes = name, list[Any]()

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"{self.name}/{kind}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def attention(self, query: str, keys: str, mask: str = "") -> str:
        """What rows see of `keys`, which are values too; a mask is added for each of these."""
        turned = self.op("Transpose", keys, perm=[0, 1, 3, 2])
        scores = self.op("MatMul", self.op("MatMul", query, "wq"), turned)
        if mask:
            scores = self.op("Add", scores, self.op("Unsqueeze", mask, "middle"))
        return self.op("MatMul", self.op("Softmax", scores, axis=-1), keys)

    def graph(self, *outputs: str) -> Any:
        made = [helper.make_tensor_value_info(name, FLOAT, None) for name in outputs]
        return helper.make_graph(self.nodes, self.name, [], made)


def _with_past(crossed: str) -> Any:
    """Keys come behind earlier ones; those of the encoder are at hand, and are not given back."""
    b = _Branch("with")
    keys = b.op("Concat", "past", b.op("MatMul", "x", "wk"), axis=2)
    y = b.attention(b.attention("x", keys, "mask"), "past_cross")
    if crossed == "empty":
        nothing = numpy_helper.from_array(np.zeros((0, 1, 1, WIDTH), np.float32))
        given = b.op("Constant", value=nothing)
    else:
        given = b.op("Identity", "past_cross")
    return b.graph(b.op("MatMul", y, "wo"), keys, given)


def _without_past() -> Any:
    b = _Branch("without")
    keys, cross = b.op("MatMul", "x", "wk"), b.op("MatMul", "encoded", "wc")
    y = b.attention(b.attention("x", keys, "mask"), cross)
    return b.graph(b.op("MatMul", y, "wo"), keys, cross)


def merged(
    *, batch: int | str = "batch", crossed: str = "empty", sizes: tuple[int, ...] = (), **axes: str
) -> Any:
    """An encoder-decoder's decoder with a cache; `sizes`: of tokens, earlier ones and the encoder.

    `axes` may name that of the mask, which is one number for all keys where sizes are fixed.
    """
    new, past, coded = sizes or ("new", "past", "coded")
    total = 1 if sizes else axes.get("total", "total")
    inputs: dict[str, list[int | str]] = {
        "x": [batch, 1, new, WIDTH],
        "encoded": [batch, 1, coded, WIDTH],
        "mask": [batch, 1, total],
        "past": [batch, 1, past, WIDTH],
        "past_cross": [batch, 1, coded if sizes else "coded_out", WIDTH],
    }
    outputs = ["y", "present", "present_cross"]
    choice = helper.make_node(
        *("If", [SWITCH], outputs), then_branch=_with_past(crossed), else_branch=_without_past()
    )
    given = [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in inputs.items()]
    given.append(helper.make_tensor_value_info(SWITCH, BOOL, [1]))
    made = [helper.make_tensor_value_info(name, FLOAT, None) for name in outputs]
    weights = {name: noise(1, WIDTH, WIDTH)[0] * (i + 1) for i, name in enumerate(_WEIGHTS)}
    constants = {**weights, "middle": np.array([2])}
    tensors = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph([choice], "merged", given, made, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


_WEIGHTS = ("wq", "wk", "wc", "wo")


def feed(on: bool, batch: int, new: int, past: int, coded: int) -> dict[str, Any]:
    """Inputs as a runtime gives them: without earlier tokens, a dummy stands for each cache."""
    total, earlier, crossed = (new + past, past, coded) if on else (new, 1, 1)
    return {
        "x": noise(batch, 1, new, WIDTH),
        "encoded": noise(batch, 1, coded, WIDTH) / 2,
        "mask": noise(batch, 1, total),
        "past": noise(batch, 1, earlier, WIDTH) / 3,
        "past_cross": noise(batch, 1, crossed, WIDTH) / 4,
        SWITCH: np.array([on]),
    }
