"""Random valid ONNX models that grow operator by operator, each computed as it is added.

Every value is known by ONNX's own reference from the start, so a model has no NaN, nothing huge,
and no comparison or rounding that a last digit decides.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import checker, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

Array = Any
OPSET = 20
_LARGEST = 1e4  # of any value
_MOST = 20_000  # elements of any value
_MARGIN = 1e-2  # from where a step function jumps


@dataclass
class Growing:
    """A model in the making: nodes, constants, and every value by name."""

    draw: random.Random
    rng: np.random.Generator
    nodes: list[Any] = field(default_factory=list[Any])
    constants: dict[str, Array] = field(default_factory=dict[str, Array])
    feed: dict[str, Array] = field(default_factory=dict[str, Array])
    values: dict[str, Array] = field(default_factory=dict[str, Array])

    def pick(self, wanted: Callable[[Array], bool]) -> str | None:
        """A value that is of the kind wanted, later ones more often."""
        names = [name for name, value in self.values.items() if wanted(value)]
        return (
            self.draw.choice(names[-6:] if self.draw.random() < 0.7 else names) if names else None
        )

    def constant(self, value: Array) -> str:
        """A new constant."""
        name = f"c{len(self.constants)}"
        self.constants[name] = np.asarray(value)
        return name

    def noise(self, *shape: int) -> str:
        """A new constant of random floats, small enough not to grow what it is multiplied with."""
        scale = 1 / max(1.0, np.sqrt(np.prod(shape[1:], dtype=float)))
        return self.constant((scale * self.rng.standard_normal(shape)).astype(np.float32))

    def add(self, op: str, inputs: Sequence[str], count: int = 1, **attributes: Any) -> bool:
        """Add a node if it computes something tame; say whether."""
        outputs = [f"v{len(self.values) + i}" for i in range(count)]
        node = helper.make_node(op, list(inputs), outputs, **attributes)
        known = {**self.values, **self.constants}
        operands = {name: known[name] for name in inputs if name}
        if not _steady(op, [known[name] for name in inputs if name]):
            return False
        try:
            with np.errstate(all="ignore"):
                results = _compute(node, operands, outputs)
        except Exception:  # no such combination of shapes; another is drawn
            return False
        if not all(map(_tame, results)):
            return False
        self.nodes.append(node)
        self.values.update(zip(outputs, results, strict=True))
        return True


def _compute(node: Any, operands: dict[str, Array], outputs: Sequence[str]) -> list[Array]:
    results = [helper.make_tensor_value_info(name, 0, None) for name in outputs]
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
        for name, x in operands.items()
    ]
    graph = helper.make_graph([node], "node", inputs, results)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
    return [np.asarray(x) for x in ReferenceEvaluator(model).run(None, operands)]


def _tame(value: Array) -> bool:
    if value.size == 0 or value.size > _MOST or value.ndim > 5:
        return False
    return value.dtype.kind == "b" or bool((np.abs(value.astype(float)) < _LARGEST).all())


def _steady(op: str, operands: Sequence[Array]) -> bool:
    """Whether a small error of the operands changes the result a little."""
    x = operands[0].astype(float)
    if op in ("Floor", "Ceil", "Round"):
        return bool((np.abs(2 * x - np.round(2 * x)) > 2 * _MARGIN).all())
    if op in ("Sign", "Reciprocal", "Log", "Sqrt"):
        return bool((np.abs(x) > _MARGIN).all()) and (
            op not in ("Log", "Sqrt") or bool((x > 0).all())
        )
    if op in ("Greater", "Less", "Equal"):
        return bool((np.abs(x - operands[1]) > _MARGIN).all())
    if op == "Div":
        return bool((np.abs(operands[1]) > 0.1).all())
    if op in ("ArgMax", "ArgMin"):
        ordered = np.sort(x.ravel())
        return bool((np.diff(ordered) > _MARGIN / 10).all())
    return True


def finished(grown: Growing, name: str) -> Any:
    """The model; values that no node reads are its outputs."""
    read = {name for node in grown.nodes for name in node.input}
    written = [name for node in grown.nodes for name in node.output]
    outputs = [_info(name, grown.values[name]) for name in written if name not in read]
    inputs = [_info(name, value) for name, value in grown.feed.items()]
    tensors = [
        numpy_helper.from_array(value, key) for key, value in grown.constants.items() if key in read
    ]
    graph = helper.make_graph(grown.nodes, name, inputs, outputs, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    checker.check_model(model, full_check=True)
    return model


def _info(name: str, value: Array) -> Any:
    kind = helper.np_dtype_to_tensor_dtype(value.dtype)
    return helper.make_tensor_value_info(name, kind, value.shape)
