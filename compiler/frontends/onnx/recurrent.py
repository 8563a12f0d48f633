"""RNN, GRU and LSTM with all their options, as one step for each time.

Inputs are projected for all times at once, by one product; only the recurrent product stays in a
step.  Layers with no unusual options are one kernel each (`recurrent_layers`); the loop over time
of others is written out.  Source of the equations: the operator pages of ONNX; arrays are `[time,
batch, features]`, gates stand in rows of the weights.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

import numpy as np

from hybridc.compiler.errors import UnsupportedError
from hybridc.compiler.frontends.onnx.node import (
    Converter,
    Expr,
    Node,
    Scope,
    dtype,
    static,
    zeros,
)
from hybridc.compiler.frontends.recurrent_layers import all_steps, steps_of_lengths
from hybridc.compiler.ir.rewrite import Extent, are_known, constant

_LONGEST = 128  # steps that are written out; more would make the program too large to build
_LENGTHS, _PEEPHOLES = 4, 7  # inputs of the nodes
_DEFAULTS = {"RNN": ("Tanh",), "GRU": ("Sigmoid", "Tanh"), "LSTM": ("Sigmoid", "Tanh", "Tanh")}
_GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}

State = tuple[Expr, ...]


@dataclass(frozen=True)
class _Direction:
    """One direction's weights, activations and options; `gates[g]` is an activation by number."""

    node: Node
    recurrent: Expr  # R transposed, [hidden, gates * hidden]
    bias: Expr | None  # of the recurrent product, [gates * hidden]
    peepholes: Sequence[Expr]
    gates: Sequence[Callable[[Expr], Expr]]
    hidden: int

    def product(self, h: Expr, first: int, last: int) -> Expr:
        """The recurrent product of some gates, with its bias."""
        s, n = self.node.scope, self.hidden
        whole = first == 0 and last == _GATES[self.node.operator]
        weights = self.recurrent if whole else _columns(s, self.recurrent, first * n, last * n)
        sums = s.matmul(h, weights)
        if self.bias is None:
            return sums
        return s.add(sums, self.bias if whole else _columns(s, self.bias, first * n, last * n))

    def part(self, x: Expr, gate: int) -> Expr:
        """A gate's columns."""
        return _columns(self.node.scope, x, gate * self.hidden, (gate + 1) * self.hidden)

    def clipped(self, x: Expr) -> Expr:
        """What goes into an activation, cut to the clip's range where there is one."""
        limit, s = self.node.get("clip"), self.node.scope
        return x if limit is None else s.maximum(s.minimum(x, limit), -limit)


def _rnn(d: _Direction, x: Expr, state: State) -> State:
    s = d.node.scope
    return (d.gates[0](d.clipped(s.add(x, d.product(state[0], 0, 1)))),)


def _gru(d: _Direction, x: Expr, state: State) -> State:
    s, (h,) = d.node.scope, state
    late = bool(d.node.get("linear_before_reset", 0))
    both = d.product(h, 0, 3) if late else d.product(h, 0, 2)
    z = d.gates[0](d.clipped(s.add(d.part(x, 0), d.part(both, 0))))
    r = d.gates[0](d.clipped(s.add(d.part(x, 1), d.part(both, 1))))
    inner = s.multiply(r, d.part(both, 2)) if late else d.product(s.multiply(r, h), 2, 3)
    candidate = d.gates[1](d.clipped(s.add(d.part(x, 2), inner)))
    # (1 - z) * candidate + z * h
    return (s.add(candidate, s.multiply(z, s.subtract(h, candidate))),)


def _lstm(d: _Direction, x: Expr, state: State) -> State:
    """Gates in ONNX's order: input, output, forget, cell."""
    s, (h, c) = d.node.scope, state
    sums = s.add(x, d.product(h, 0, 4))

    def gate(number: int, cell: Expr, peephole: int) -> Expr:
        inner = d.part(sums, number)
        if d.peepholes:
            inner = s.add(inner, s.multiply(d.peepholes[peephole], cell))
        return d.gates[0](d.clipped(inner))

    i = gate(0, c, 0)
    # Coupled gates forget what they do not take in.
    f = s.add(s.negative(i), 1.0) if d.node.get("input_forget", 0) else gate(2, c, 2)
    candidate = d.gates[1](d.clipped(d.part(sums, 3)))
    cell = s.add(s.multiply(f, c), s.multiply(i, candidate))
    return s.multiply(gate(1, cell, 1), d.gates[2](cell)), cell


_STEPS: Mapping[str, Callable[[_Direction, Expr, State], State]] = MappingProxyType(
    {"RNN": _rnn, "GRU": _gru, "LSTM": _lstm}
)


def _recurrent(node: Node) -> list[Expr]:
    """Y `[time, directions, batch, hidden]`, then the last state for each of the step's states."""
    s, x = node.scope, node.inputs[0]
    batchwise = bool(node.get("layout", 0))
    x = s.permute_dims(x, [1, 0, 2]) if batchwise else x
    time, batch, _ = static(x)
    plain = _is_plain(node)
    if not are_known([time]) and not plain:
        raise UnsupportedError("an open number of steps and such options")
    if not plain and time > _LONGEST:
        raise UnsupportedError(f"{time} steps with such options; the most is {_LONGEST}")
    kind = node.get("direction", "forward")
    directions = ["forward", "reverse"] if kind == "bidirectional" else [kind]
    outputs: list[Expr] = []
    states: list[State] = []
    for number, direction in enumerate(directions):
        reverse = direction == "reverse"
        if plain:
            steps, state = _looped(node, x, number, reverse)
        else:
            steps, state = _one_way(node, x, number, len(directions), reverse)
        outputs.append(s.reshape(steps, [time, 1, batch, static(steps)[2]]))
        states.append(state)
    y = s.concat(outputs, 1) if len(outputs) > 1 else outputs[0]
    lasts = [s.stack(list(parts), 0) for parts in zip(*states, strict=True)]
    if batchwise:
        y = s.permute_dims(y, [2, 0, 1, 3])
        lasts = [s.permute_dims(last, [1, 0, 2]) for last in lasts]
    return [y, *lasts]


def _is_plain(node: Node) -> bool:
    """Whether the kernel computes a node: float32, the usual functions.

    Sequences with lengths are of a known number and time.  A GRU resets behind the product, as
    torch does.
    """
    activations = _DEFAULTS[node.operator]
    named = node.get("activations") or activations
    names = [n.decode() if isinstance(n, bytes) else n for n in named]
    usual = [name.lower() for name in activations]
    same = all(name.lower() == usual[i % len(usual)] for i, name in enumerate(names))
    options = node.get("clip") or node.get("input_forget", 0)
    open_lengths = node.input(_LENGTHS) is not None and not are_known(node.shape()[:2])
    optional = open_lengths or node.input(_PEEPHOLES) is not None
    late = node.operator != "GRU" or bool(node.get("linear_before_reset", 0))
    return dtype(node.inputs[0]) == "float32" and same and late and not options and not optional


def _looped(node: Node, x: Expr, number: int, reverse: bool) -> tuple[Expr, State]:
    """One direction by a kernel that takes all steps."""
    batch = static(x)[1]
    w, r = (_of(node, index, number) for index in (1, 2))
    hidden = static(r)[1]
    bias = None if node.input(3) is None else _of(node, 3, number)
    state: State = (_initial(node, 5, number, batch, hidden),)
    if node.operator == "LSTM":
        state = (*state, _initial(node, 6, number, batch, hidden))
    operands = node.scope, node.operator, x, (w, r, bias), state
    if (lengths := node.input(_LENGTHS)) is not None:
        return steps_of_lengths(*operands, lengths=lengths, reverse=reverse)
    return all_steps(*operands, reverse=reverse)


def _one_way(
    node: Node, x: Expr, number: int, directions: int, reverse: bool
) -> tuple[Expr, State]:
    """Outputs `[time, batch, hidden]` and last states `[batch, hidden]` of one direction."""
    s = node.scope
    time, batch, _ = static(x)
    direction, projection = _prepared(node, number, directions)
    projected = projection(x)
    width = static(projected)[2]
    state: State = (_initial(node, 5, number, batch, direction.hidden),)
    if node.operator == "LSTM":
        state = (*state, _initial(node, 6, number, batch, direction.hidden))
    lengths = node.input(_LENGTHS)
    steps: dict[int, Expr] = {}
    for at in reversed(range(time)) if reverse else range(time):
        step = s.reshape(s.strided_slice(projected, [0], [at], [at + 1]), [batch, width])
        new = _STEPS[node.operator](direction, step, state)
        if lengths is not None:  # beyond a sequence's end the state stays and the output is 0
            inside = s.reshape(s.less(constant(np.array(at), dtype(lengths)), lengths), [batch, 1])
            state = tuple(s.where(inside, a, b) for a, b in zip(new, state, strict=True))
            steps[at] = s.where(inside, new[0], s.multiply(new[0], 0.0))
        else:
            state, steps[at] = new, new[0]
    return s.stack([steps[at] for at in range(time)], 0), state


def _prepared(
    node: Node, number: int, directions: int
) -> tuple[_Direction, Callable[[Expr], Expr]]:
    """A direction, and the product of its input weights, of which the bias is a part."""
    s = node.scope
    gates = _GATES[node.operator]
    w, r = (_of(node, index, number) for index in (1, 2))
    hidden = static(r)[1]
    inner = outer = None
    if node.input(3) is not None:
        both = _of(node, 3, number)
        outer, inner = (
            _columns(s, both, k * gates * hidden, (k + 1) * gates * hidden) for k in (0, 1)
        )
    peepholes: list[Expr] = []
    if node.operator == "LSTM" and node.input(7) is not None:
        held = _of(node, 7, number)
        peepholes = [_columns(s, held, k * hidden, (k + 1) * hidden) for k in range(3)]
    transposed = s.permute_dims(w)
    functions = _activations(node, number, directions)
    direction = _Direction(node, s.permute_dims(r), inner, peepholes, functions, hidden)

    def projection(x: Expr) -> Expr:
        projected = s.matmul(x, transposed)
        return projected if outer is None else s.add(projected, outer)

    return direction, projection


def _initial(node: Node, index: int, number: int, batch: Extent, hidden: int) -> Expr:
    if node.input(index) is None:
        return zeros(node.scope, (batch, hidden), dtype(node.inputs[0]))
    state = node.inputs[index]
    if node.get("layout", 0):
        state = node.scope.permute_dims(state, [1, 0, 2])
    return _slice(node, state, number)


def _of(node: Node, index: int, number: int) -> Expr:
    """A direction's part of an input."""
    return _slice(node, node.inputs[index], number)


def _slice(node: Node, value: Expr, number: int) -> Expr:
    return node.scope.squeeze(node.scope.strided_slice(value, [0], [number], [number + 1]), [0])


def _columns(s: Expr, value: Expr, first: int, last: int) -> Expr:
    """A range of the last axis."""
    axis = len(value.ty.shape.values) - 1
    return s.strided_slice(value, [axis], [first], [last])


def _activations(node: Node, number: int, directions: int) -> list[Callable[[Expr], Expr]]:
    """The functions of one direction; alphas and betas are listed for those that take them."""
    s = node.scope
    usual = _DEFAULTS[node.operator]
    names = node.get("activations") or [*usual] * directions
    names = [name.decode() if isinstance(name, bytes) else name for name in names]
    alphas = list(node.get("activation_alpha") or [])
    betas = list(node.get("activation_beta") or [])
    functions: list[Callable[[Expr], Expr]] = []
    for name in names:
        function, alpha, beta = _FUNCTIONS.get(name.lower(), (None, None, None))
        if function is None:
            raise UnsupportedError(f"the activation {name}")
        a = alphas.pop(0) if alpha is not None and alphas else alpha
        b = betas.pop(0) if beta is not None and betas else beta
        functions.append(partial(_applied, function, s, a, b))
    count = len(usual)
    return functions[number * count : (number + 1) * count]


def _applied(
    function: Callable[..., Expr], s: Scope, alpha: float | None, beta: float | None, x: Expr
) -> Expr:
    return function(s, x, alpha, beta)


# A function of the scope, x, alpha and beta, and the defaults of those that it takes.
_FUNCTIONS: Mapping[str, tuple[Callable[..., Expr] | None, float | None, float | None]] = (
    MappingProxyType(
        {
            "affine": (lambda s, x, a, b: s.add(s.multiply(x, a), b), 1.0, 0.0),
            "hardsigmoid": (
                lambda s, x, a, b: s.minimum(s.maximum(s.add(s.multiply(x, a), b), 0.0), 1.0),
                0.2,
                0.5,
            ),
            "leakyrelu": (
                lambda s, x, a, b: s.where(s.less(x, 0.0), s.multiply(x, a), x),
                0.01,
                None,
            ),
            "relu": (lambda s, x, a, b: s.maximum(x, 0.0), None, None),
            "sigmoid": (lambda s, x, a, b: s.sigmoid(x), None, None),
            "tanh": (lambda s, x, a, b: s.tanh(x), None, None),
        }
    )
)

CONVERTERS: Mapping[str, Converter] = MappingProxyType(dict.fromkeys(_GATES, _recurrent))
