"""Recurrent layers: one kernel for all steps of a direction, as of ONNX's operators."""

from collections.abc import Mapping, Sequence
from functools import partial
from types import MappingProxyType

from hybridc.compiler.errors import UnsupportedError
from hybridc.compiler.frontends.aten.call import Call, Converter
from hybridc.compiler.frontends.onnx.node import Expr, Scope, dtype, static
from hybridc.compiler.frontends.recurrent_layers import all_steps

# Where torch has the gates that ONNX counts: torch has i, f, g, o and r, z, n.
_GATES: Mapping[str, Sequence[int]] = MappingProxyType(
    {"LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2), "RNN": (0,)}
)
State = tuple[Expr, ...]


def _converted(call: Call, layer: str) -> tuple[Expr, ...]:
    """Outputs and last states of all layers and directions."""
    s, states = call.scope, call["hx"] if layer == "LSTM" else [call["hx"]]
    directions, each = 1 + bool(call["bidirectional"]), 4 if call["has_biases"] else 2
    params, count = list(call["params"]), call["num_layers"] * directions
    if call["train"] and call["dropout"]:
        raise UnsupportedError("dropout")
    if len(params) != each * count or call["hx"] is None:
        raise UnsupportedError("projections of its states")
    x = s.permute_dims(call["input"], [1, 0, 2]) if call["batch_first"] else call["input"]
    steps = _steps if dtype(x) == "float32" else _written_steps
    ended: list[State] = []
    for first in range(0, count, directions):
        outputs: list[Expr] = []
        for number in range(first, first + directions):
            weights = params[number * each : (number + 1) * each]
            state = tuple(_row(s, value, number) for value in states)
            reverse = number > first
            y, last = steps(s, layer, x, weights, state, reverse=reverse)
            outputs.append(y)
            ended.append(last)
        x = s.concat(outputs, 2) if directions > 1 else outputs[0]
    lasts = [s.stack([state[i] for state in ended], 0) for i in range(len(states))]
    return (s.permute_dims(x, [1, 0, 2]) if call["batch_first"] else x, *lasts)


def _steps(  # noqa: PLR0913 - a layer's operands
    s: Scope, layer: str, x: Expr, weights: Sequence[Expr], state: State, *, reverse: bool
) -> tuple[Expr, State]:
    """One direction of a layer by a kernel."""
    w, r, *biases = (_reordered(s, weight, _GATES[layer]) for weight in weights)
    both = s.concat(biases, 0) if biases else None
    return all_steps(s, layer, x, (w, r, both), state, reverse=reverse)


def _written_steps(  # noqa: PLR0913 - a layer's operands
    s: Scope, layer: str, x: Expr, weights: Sequence[Expr], state: State, *, reverse: bool
) -> tuple[Expr, State]:
    """The same of types that the kernel does not know, step by step."""
    (w, r, *biases), (time, batch, _) = weights, static(x)
    inputs = s.matmul(x, s.permute_dims(w))
    inputs = s.add(inputs, biases[0]) if biases else inputs
    outputs: list[Expr] = []
    for t in reversed(range(time)) if reverse else range(time):
        now = s.reshape(s.strided_slice(inputs, [0], [t], [t + 1]), [batch, static(w)[0]])
        inner = s.matmul(state[0], s.permute_dims(r))
        state = _stepped(s, layer, now, s.add(inner, biases[1]) if biases else inner, state)
        outputs.append(state[0])
    return s.stack(outputs[::-1] if reverse else outputs, 0), state


def _stepped(s: Scope, layer: str, now: Expr, inner: Expr, state: State) -> State:
    """The states behind one step."""
    count = len(_GATES[layer])
    of_input, of_state = (_gates(s, value, count) for value in (now, inner))
    sums = [s.add(a, b) for a, b in zip(of_input, of_state, strict=True)]
    if layer == "RNN":
        return (s.tanh(sums[0]),)
    if layer == "LSTM":
        i, f, o = (s.sigmoid(sums[gate]) for gate in (0, 1, 3))
        cell = s.add(s.multiply(f, state[1]), s.multiply(i, s.tanh(sums[2])))
        return s.multiply(o, s.tanh(cell)), cell
    r, z = (s.sigmoid(gate) for gate in sums[:2])
    new = s.tanh(s.add(of_input[2], s.multiply(r, of_state[2])))
    return (s.add(new, s.multiply(z, s.subtract(state[0], new))),)


def _gates(s: Scope, value: Expr, count: int) -> list[Expr]:
    width = static(value)[1] // count
    return [s.strided_slice(value, [1], [g * width], [(g + 1) * width]) for g in range(count)]


def _reordered(s: Scope, weight: Expr, order: Sequence[int]) -> Expr:
    """Rows of weights, or a bias, with the gates in another order."""
    if len(order) == 1:
        return weight
    height = static(weight)[0] // len(order)
    return s.concat(
        [s.strided_slice(weight, [0], [g * height], [(g + 1) * height]) for g in order], 0
    )


def _row(s: Scope, value: Expr, number: int) -> Expr:
    """The state of one layer and direction."""
    row = s.strided_slice(value, [0], [number], [number + 1])
    return s.reshape(row, static(value)[1:])


CONVERTERS: Mapping[str, Converter] = MappingProxyType(
    {
        "lstm.input": partial(_converted, layer="LSTM"),
        "gru.input": partial(_converted, layer="GRU"),
        "rnn_tanh.input": partial(_converted, layer="RNN"),
    }
)
