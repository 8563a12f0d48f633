"""ONNX's reference with operands of products rounded as a precision below fp32 rounds them.

What it is off by is what that precision explains.  Formulas are written here anew.  In 16 bits,
what products read is stored so, and its other readers get it rounded too; likewise feature maps in
8 bits.
"""

import copy
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import ml_dtypes
import numpy as np
from onnx import TensorProto, helper, numpy_helper, shape_inference
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from onnx.reference.ops import op_conv, op_gemm, op_matmul

Array = Any
# How many times the error of this reference an answer may have, and of a rounding of the largest
# element: another order of roundings gives other errors, of which the largest counts.
_TIMES, _ROUNDINGS = 5.0, 2.0
_SLACK = 1e-4  # of fp32
_MAP = 4  # axes of a feature map
_OWN = "rounding"  # the domain of an operator of ours


@dataclass(frozen=True)
class Rounding:
    """What a precision makes of activations, and of weights `[K, N]`; None: they stay.

    `activations_both` tells that products of two activations are rounded, `filters` that
    convolutions are; `unit` is half a step of what is stored, as a share of the largest number.
    """

    activations: Callable[[Array], Array]
    weights: Callable[[Array], Array]
    activations_both: bool = False
    filters: bool = True
    unit: float = 0.0


def cast(dtype: Any) -> Callable[[Array], Array]:
    """Rounding to a type and back."""
    return lambda x: x.astype(dtype).astype(np.float32)


def integers(x: Array, axis: int | None) -> Array:
    """Rounding to 255 steps from the least to the largest number, of each row or of all."""
    low = np.minimum(x.min(axis, keepdims=True), 0)
    high = np.maximum(x.max(axis, keepdims=True), 0)
    step = np.maximum((high - low) / 255, np.finfo(np.float32).tiny)
    zero = np.round(-low / step)
    return ((np.clip(np.round(x / step) + zero, 0, 255) - zero) * step).astype(np.float32)


def symmetric(weight: Array, levels: int, group: int, scales: Any = ml_dtypes.bfloat16) -> Array:
    """Rounding of `[K, N]` to so many steps up to the largest weight of each column and group."""
    rounded = np.empty_like(weight)
    for start in range(0, len(weight), group):
        part = weight[start : start + group]
        step = np.abs(part).max(0, keepdims=True) / levels
        step = np.where(step > 0, step, 1).astype(scales).astype(np.float32)
        rounded[start : start + group] = np.round(part / step) * step
    return rounded


def _columns(weight: Array, scales: Any = ml_dtypes.bfloat16) -> Array:
    return symmetric(weight, 127, len(weight), scales)


def _same(x: Array) -> Array:
    return x


ROUNDINGS: Mapping[str, Rounding] = MappingProxyType(
    {
        "bf16": Rounding(cast(ml_dtypes.bfloat16), cast(ml_dtypes.bfloat16), True, unit=2.0**-9),
        "fp16": Rounding(cast(np.float16), cast(np.float16), True, unit=2.0**-12),
        "int8": Rounding(
            lambda x: integers(x, None), lambda w: _columns(w, np.float32), unit=0.5 / 127
        ),
        "int8-dynamic": Rounding(lambda x: integers(x, -1), _columns, filters=False),
        "int8-weights": Rounding(_same, lambda w: symmetric(w, 127, 128)),
        "int4-weights": Rounding(_same, lambda w: symmetric(w, 7, 32)),
    }
)


def rounding(dtype: str) -> Rounding:
    """What a precision rounds, or a pair: its weights are packed, then stored as activations."""
    activations, _, packed = dtype.partition("+")
    first = ROUNDINGS[activations]
    if not packed:
        return first
    weights = ROUNDINGS[packed].weights
    return replace(first, weights=lambda weight: first.weights(weights(weight)))


_HALVES = MappingProxyType({"bf16": TensorProto.BFLOAT16, "fp16": TensorProto.FLOAT16})
# These choose or move elements: what they read is rounded as what they make.
_MOVES = frozenset({"Concat", "Flatten", "MaxPool", "Reshape", "Slice", "Split", "Transpose"})
_PRODUCTS = frozenset({"Conv", "Gemm", "MatMul"})


def _mapped(proto: Any) -> Any:
    """The model with each map that a product reads rounded to 8 bits for all readers."""
    made = copy.deepcopy(proto)
    held = {value.name for value in made.graph.initializer}
    maps = {node.input[0] for node in made.graph.node if node.op_type in _PRODUCTS} - held
    maps &= {
        value.name for value in _values(proto) if len(value.type.tensor_type.shape.dim) == _MAP
    }
    nodes = [_rounding(name) for name in maps & {value.name for value in made.graph.input}]
    for node in made.graph.node:
        _rename(node, maps)
        nodes += [node, *(_rounding(name) for name in node.output if name in maps)]
    kept = [copy.deepcopy(node) for node in nodes]
    del made.graph.node[:]
    made.graph.node.extend(kept)
    made.opset_import.append(helper.make_opsetid(_OWN, 1))
    return made


def _values(proto: Any) -> list[Any]:
    """All that is computed, and what goes in, with shapes."""
    graph = shape_inference.infer_shapes(proto).graph
    return [*graph.input, *graph.value_info, *graph.output]


def _rounding(name: str) -> Any:
    return helper.make_node("Rounded", [name], [f"{name} rounded"], domain=_OWN)


def _rename(node: Any, rounded: Collection[str]) -> None:
    """Let a node read what is rounded."""
    names = [f"{name} rounded" if name in rounded else name for name in node.input]
    del node.input[:]
    node.input.extend(names)


class Rounded(OpRun):
    """The operator that rounds a feature map to 255 steps."""

    op_domain = _OWN

    def _run(self, x: Array) -> Any:
        return (integers(x, None),)


def _stored(proto: Any, bits: int) -> Any:
    """The model with each value that a product reads rounded to 16 bits where it is made."""
    made = copy.deepcopy(proto)
    wanted: set[str] = set()
    for node in reversed(made.graph.node):
        if node.op_type in _PRODUCTS or (node.op_type in _MOVES and wanted & set(node.output)):
            wanted.update(node.input)
    wanted -= {value.name for value in [*made.graph.input, *made.graph.initializer]}
    nodes: list[Any] = []
    for node in made.graph.node:
        _rename(node, wanted)
        nodes.append(node)
        for name in wanted & set(node.output):
            nodes.append(helper.make_node("Cast", [name], [f"{name} narrow"], to=bits))
            nodes.append(helper.make_node("Cast", [f"{name} narrow"], [f"{name} rounded"], to=1))
    kept = [copy.deepcopy(node) for node in nodes]
    del made.graph.node[:]
    made.graph.node.extend(kept)
    return made


def run(proto: Any, feed: Mapping[str, Array], dtype: str) -> list[Array]:
    """The outputs of a model in a precision of `ROUNDINGS`, or a pair of two."""
    constants = {numpy_helper.to_array(w).tobytes() for w in proto.graph.initializer}
    operators = _operators(rounding(dtype), constants)
    if bits := _HALVES.get(dtype.partition("+")[0]):
        proto = _stored(proto, bits)
    if dtype == "int8":
        proto = _mapped(proto)
    with np.errstate(all="ignore"):
        outputs = ReferenceEvaluator(proto, new_ops=operators).run(None, dict(feed))
    return [np.asarray(output) for output in outputs]


def _operators(how: Rounding, constants: set[bytes]) -> list[Any]:
    """The operators of products, which round what they read."""

    def rounded(x: Array, weight: Array) -> tuple[Array, Array]:
        if weight.ndim == 2 and weight.tobytes() in constants:
            return how.activations(x), how.weights(weight)
        both = how.activations_both
        return (how.activations(x), how.activations(weight)) if both else (x, weight)

    class MatMul(op_matmul.MatMul):
        op_domain = ""

        def _run(self, a: Array, b: Array) -> Any:
            return super()._run(*rounded(a, b))

    class Gemm(op_gemm.Gemm_7):
        op_domain = ""

        def _run(self, x: Array, weight: Array, *rest: Any, transB: int = 0, **how_: Any) -> Any:  # noqa: N803 - ONNX's
            known = weight.tobytes() in constants
            matrix = np.ascontiguousarray(weight.T) if transB else weight
            if known:
                x, matrix = how.activations(x), how.weights(matrix)
            return super()._run(x, matrix, *rest, transB=0, **how_)

    class Conv(op_conv.Conv):
        op_domain = ""

        def _run(self, x: Array, weight: Array, *rest: Any, **how_: Any) -> Any:
            if how.filters and weight.tobytes() in constants:
                matrix = how.weights(np.moveaxis(weight, (0, 1), (-1, -2)).reshape(-1, len(weight)))
                places = (*weight.shape[2:], weight.shape[1], len(weight))
                x = how.activations(x)
                weight = np.moveaxis(matrix.reshape(places), (-1, -2), (0, 1))
            return super()._run(x, weight, *rest, **how_)

    return [MatMul, Gemm, Conv, Rounded]


def unexplained(
    wanted: Sequence[Array], rounded: Sequence[Array], got: Sequence[Array], dtype: str
) -> str:
    """How outputs are further off than a precision explains, or nothing.

    Where rounding alone decides on other integers, none are compared.
    """
    for index, (right, near, value) in enumerate(zip(wanted, rounded, got, strict=True)):
        if right.shape != value.shape or right.dtype != value.dtype:
            return f"output {index}: {value.dtype}{value.shape}, not {right.dtype}{right.shape}"
        if right.dtype.kind != "f":
            if np.array_equal(right, near) and not np.array_equal(right, value):
                return f"output {index}: integers or truths differ"
            continue
        error, expected = (float(np.abs(right - x).max(initial=0)) for x in (value, near))
        largest = float(np.abs(right).max(initial=0))
        allowed = _TIMES * expected + (_ROUNDINGS * rounding(dtype).unit + _SLACK) * largest
        if not error <= allowed + _SLACK:
            return f"output {index}: off by {error:.3g}, rounding explains {expected:.3g}"
    return ""
