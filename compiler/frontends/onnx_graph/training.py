"""Write ONNX's steps of optimisers, and its gradients, with plain operators.

They are of the domain ai.onnx.preview.training: Adagrad, Adam, Momentum and Gradient.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from hybridc.compiler.frontends.onnx_graph.gradient import gradient
from hybridc.compiler.frontends.onnx_graph.gradient_tape import Tape
from hybridc.compiler.frontends.onnx_graph.model_file import Proto, copied
from hybridc.compiler.frontends.onnx_graph.writer import Place, opset_of

_DOMAIN = "ai.onnx.preview.training"


def written_out(proto: Proto) -> Proto:
    """The model without operators of training; the one given where it has none.

    Raises ModelError for a gradient through what has no rule.
    """
    import onnx

    if _first(proto.graph) is None:
        return proto
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    while (index := _first(copy.graph)) is not None:
        node = copy.graph.node[index]
        # A gradient may be taken of another one: types are known of what was written by now.
        nodes = _EXPANSIONS[node.op_type](_tape(copy, copied(node)))
        kept = [*copy.graph.node[:index], *nodes, *copy.graph.node[index + 1 :]]
        copies = [copied(each) for each in kept]
        del copy.graph.node[:]
        copy.graph.node.extend(copies)
    return copy


def _first(graph: Proto) -> int | None:
    return next(
        (
            index
            for index, node in enumerate(graph.node)
            if node.domain == _DOMAIN and node.op_type in _EXPANSIONS
        ),
        None,
    )


def _tape(proto: Proto, node: Proto) -> Tape:
    """What writes formulas in the node's place, on tensors of its type."""
    import onnx

    graph = onnx.shape_inference.infer_shapes(proto).graph
    values = [*graph.input, *graph.value_info, *graph.output]
    types = {value.name: value.type for value in values}
    for tensor in graph.initializer:
        types[tensor.name] = onnx.helper.make_tensor_type_proto(tensor.data_type, tensor.dims)
    like = types.get(node.input[0 if node.op_type == "Gradient" else 2])
    number = like.tensor_type.elem_type if like is not None else onnx.TensorProto.FLOAT
    dtype = str(onnx.helper.tensor_dtype_to_np_dtype(number))
    prefix = f"{next(name for name in node.output if name)}/{node.op_type}"
    return Tape(Place(proto.graph, node, prefix, opset_of(proto)), types, dtype)


def _steps(count: int, step: Callable[..., Sequence[str]]) -> Callable[[Tape], list[Proto]]:
    """A step for each tensor: `count` operands each, which stand together by their kind."""

    def expand(tape: Tape) -> list[Proto]:
        rate, turn, *rest = tape.node.input
        tensors = len(rest) // count
        for index in range(tensors):
            results = step(tape, rate, turn, *rest[index::tensors])
            for result, output in zip(results, tape.node.output[index::tensors], strict=False):
                if output:
                    tape.emit("Identity", [result], output)
        return tape.nodes

    return expand


def _option(tape: Tape, name: str, default: float = 0.0) -> float:
    return float(tape.attribute(name, default))


def _regularized(tape: Tape, x: str, gradient: str) -> str:
    return tape("Add", tape("Mul", x, _option(tape, "norm_coefficient")), gradient)


def _double(tape: Tape, x: str) -> str:
    import onnx

    return tape.emit("Cast", [x], to=onnx.TensorProto.DOUBLE)


def _own(tape: Tape, x: str) -> str:
    """A number as the tensors' type."""
    import onnx

    return tape.emit("Cast", [x], to=onnx.helper.np_dtype_to_tensor_dtype(np.dtype(tape.dtype)))


def _adagrad(tape: Tape, rate: str, turn: str, x: str, g: str, h: str) -> Sequence[str]:  # noqa: PLR0913, PLR0917
    decay = tape("Add", tape("Mul", _own(tape, turn), _option(tape, "decay_factor")), 1.0)
    slope = _regularized(tape, x, g)
    squares = tape("Add", h, tape("Mul", slope, slope))
    scale = tape("Add", tape("Sqrt", squares), _option(tape, "epsilon", 1e-6))
    step = tape("Mul", tape("Div", _own(tape, rate), decay), slope)
    return tape("Sub", x, tape("Div", step, scale)), squares


def _adam(tape: Tape, rate: str, turn: str, x: str, g: str, v: str, h: str) -> Sequence[str]:  # noqa: PLR0913, PLR0917
    alpha, beta = _option(tape, "alpha", 0.9), _option(tape, "beta", 0.999)
    slope = _regularized(tape, x, g)
    mean = tape("Add", tape("Mul", v, alpha), tape("Mul", slope, 1 - alpha))
    squares = tape("Add", tape("Mul", h, beta), tape("Mul", tape("Mul", slope, slope), 1 - beta))
    scale = tape("Add", tape("Sqrt", squares), _option(tape, "epsilon", 1e-6))
    step = tape("Mul", _unbiased(tape, rate, turn, (alpha, beta)), tape("Div", mean, scale))
    stepped = tape("Sub", x, step)
    return tape("Mul", stepped, 1 - _option(tape, "norm_coefficient_post")), mean, squares


def _unbiased(tape: Tape, rate: str, turn: str, powers: tuple[float, float]) -> str:
    """The rate without the bias of the first turns; in float64, since 1 - 0.999 loses digits."""
    one, zero = (tape.constant(np.float64(value)) for value in (1, 0))
    wide, turns = _double(tape, rate), _double(tape, turn)
    first, second = (
        tape("Sub", one, tape("Pow", tape.constant(np.float64(power)), turns)) for power in powers
    )
    adjusted = tape("Div", tape("Mul", wide, tape("Sqrt", second)), first)
    return _own(tape, tape("Where", tape("Greater", turns, zero), adjusted, wide))


def _momentum(tape: Tape, rate: str, turn: str, x: str, g: str, v: str) -> Sequence[str]:  # noqa: PLR0913, PLR0917
    alpha, beta = _option(tape, "alpha"), _option(tape, "beta")
    slope = _regularized(tape, x, g)
    # The gradient counts whole in the first turn.
    share = tape("Where", tape("Greater", _own(tape, turn), 0.0), beta, 1.0)
    mean = tape("Add", tape("Mul", v, alpha), tape("Mul", share, slope))
    nesterov = tape.attribute("mode", "standard") == "nesterov"
    step = tape("Add", slope, tape("Mul", mean, alpha)) if nesterov else mean
    return tape("Sub", x, tape("Mul", _own(tape, rate), step)), mean


_EXPANSIONS: Mapping[str, Callable[[Tape], list[Proto]]] = MappingProxyType(
    {
        "Adagrad": _steps(3, _adagrad),
        "Adam": _steps(4, _adam),
        "Gradient": gradient,
        "Momentum": _steps(3, _momentum),
    }
)
