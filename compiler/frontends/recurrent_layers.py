"""Recurrent layers with no unusual options, as one kernel for each direction."""

import numpy as np
from tvm import relax

from hybridc.compiler.frontends.onnx.node import Expr, Scope, counted, factor, static, zeros
from hybridc.compiler.frontends.onnx.selection import reversed_in_time
from hybridc.compiler.ir.rewrite import constant
from hybridc.compiler.kernels import recurrence
from hybridc.compiler.kernels.recurrence import LANES

# What an LSTM's gates are given for its cell to stay: nothing goes in, nothing is forgotten.
_STILL = (-1e9, 0, 1e9, 0)


def all_steps(  # noqa: PLR0913 - a layer's operands
    s: Scope,
    layer: str,
    x: Expr,
    weights: tuple[Expr, Expr, Expr | None],
    state: tuple[Expr, ...],
    *,
    reverse: bool,
    inside: Expr | None = None,
) -> tuple[Expr, tuple[Expr, ...]]:
    """Outputs `[time, batch, hidden]` and last states of one direction of an RNN, GRU or LSTM.

    All is float32, and a GRU applies its reset gate behind the recurrent product.  `weights` are
    those of inputs `[gates * hidden, inputs]` and of states `[gates * hidden, hidden]`, and the
    biases of both, one behind the other; gates stand in the order of ONNX.  Where `inside`,
    `[time, batch]`, is false, an LSTM's cell stays as it is.
    """
    gates = recurrence.gates_of(layer)
    (time, batch, _), hidden = static(x), static(weights[1])[1]
    padded = _whole_vectors(hidden)
    projected, inner = _projected(s, layer, x, weights)
    if layer == "LSTM" and inside is not None:
        still = constant(np.array(_STILL).reshape(1, 1, gates, 1), "float32")
        projected = s.where(s.reshape(inside, [time, batch, 1, 1]), projected, still)
    whole = [_padded(s, part, padded, 1) for part in state]
    y, cell = s.loops(
        recurrence.NAME,
        recurrence.kernel(layer, time, batch, hidden, reverse=reverse),
        [projected, _packed(s, weights[1], gates, padded), inner, whole[0], whole[-1]],
        [((time, batch, padded), "float32"), ((batch, padded), "float32")],
    )
    y = _cut(s, y, hidden, 2)
    last = 0 if reverse else time - 1
    bounds = [[relax.prim_value(place)] for place in (last, last + 1)]
    ended = s.strided_slice(y, [0], *bounds, assume_inbound=True)
    ended = s.reshape(ended, [batch, hidden])
    return y, (ended, _cut(s, cell, hidden, 1)) if layer == "LSTM" else (ended,)


def steps_of_lengths(  # noqa: PLR0913 - a layer's operands
    s: Scope,
    layer: str,
    x: Expr,
    weights: tuple[Expr, Expr, Expr | None],
    state: tuple[Expr, ...],
    *,
    lengths: Expr,
    reverse: bool,
) -> tuple[Expr, tuple[Expr, ...]]:
    """The same for sequences of `lengths`, int `[batch]`: zeros behind their ends.

    The last states are those at the ends, where reverse layers begin.
    """
    (time, batch, _), hidden = static(x), static(weights[1])[1]
    lengths = s.astype(lengths, "int64")
    at = s.reshape(counted(s, time), [-1, 1])
    inside = s.less(at, s.reshape(lengths, [1, batch]))
    x = reversed_in_time(s, x, lengths) if reverse else x
    y, (_, *cell) = all_steps(s, layer, x, weights, state, reverse=False, inside=inside)
    firsts = s.multiply(s.maximum(s.subtract(lengths, 1), 0), factor(s, batch))
    rows = s.add(firsts, counted(s, batch))
    ended = s.take(s.reshape(y, [time * batch, hidden]), rows, axis=0)
    ended = s.where(s.reshape(s.greater(lengths, 0), [batch, 1]), ended, state[0])
    y = reversed_in_time(s, y, lengths) if reverse else y
    nothing = constant(np.array(0), "float32")
    return s.where(s.reshape(inside, [time, batch, 1]), y, nothing), (ended, *cell)


def _whole_vectors(size: int) -> int:
    """A size rounded up to whole vectors of the kernel."""
    return -(-size // LANES) * LANES


def _projected(
    s: Scope, layer: str, x: Expr, weights: tuple[Expr, Expr, Expr | None]
) -> tuple[Expr, Expr]:
    """The inputs' products with all that is added to them; and the bias that a reset gate takes."""
    w, r, both = weights
    (time, batch, inputs), hidden = static(x), static(r)[1]
    gates, padded = recurrence.gates_of(layer), _whole_vectors(hidden)
    w = _padded(s, s.reshape(w, [gates, hidden, inputs]), padded, 1)
    projected = s.matmul(x, s.permute_dims(s.reshape(w, [gates * padded, inputs])))
    inner = constant(np.zeros(padded), "float32")
    if both is not None:
        both = _padded(s, s.reshape(both, [2, gates, hidden]), padded, 2)
        outer, recurrent = (s.squeeze(part, [0]) for part in (_part(s, both, 0), _part(s, both, 1)))
        if layer == "GRU":
            inner = s.reshape(_part(s, recurrent, gates - 1), [padded])
            rest = s.strided_slice(recurrent, [0], [0], [gates - 1])
            nothing = constant(np.zeros((1, padded)), "float32")
            recurrent = s.concat([rest, nothing], 0)
        projected = s.add(projected, s.reshape(s.add(outer, recurrent), [gates * padded]))
    return s.reshape(projected, [time, batch, gates, padded]), inner


def _packed(s: Scope, r: Expr, gates: int, padded: int) -> Expr:
    """Recurrent weights as the kernel reads them: `[blocks, hidden, gates, lanes]`."""
    hidden = static(r)[1]
    r = _padded(s, s.reshape(r, [gates, hidden, hidden]), padded, 1)
    return s.permute_dims(s.reshape(r, [gates, padded // LANES, LANES, hidden]), [1, 3, 0, 2])


def _part(s: Scope, value: Expr, index: int) -> Expr:
    return s.strided_slice(value, [0], [index], [index + 1])


def _padded(s: Scope, value: Expr, size: int, axis: int) -> Expr:
    """Zeros behind an axis, up to `size`."""
    shape = list(static(value))
    missing = size - shape[axis]
    if not missing:
        return value
    shape[axis] = missing
    return s.concat([value, zeros(s, shape, "float32")], axis)


def _cut(s: Scope, value: Expr, size: int, axis: int) -> Expr:
    return value if static(value)[axis] == size else s.strided_slice(value, [axis], [0], [size])
