"""Vector-Jacobian products of common operators, as nodes of ONNX.

A rule takes the tape, a node and the gradient of its output, and gives one for each input; None
where there is none.  A number among the operands of `tape(…)` is a constant of the tape's type.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from hybridc.compiler.errors import ModelError
from hybridc.compiler.frontends.onnx_graph.gradient_tape import Tape
from hybridc.compiler.frontends.onnx_graph.misreadings import attributes
from hybridc.compiler.frontends.onnx_graph.model_file import Proto

_SOFTMAX_HAS_AXIS = 13  # before it, all axes from the given one on were one


Gradients = Sequence[str | None]
Rule = Callable[[Tape, Proto, str], Gradients]


def _unary(formula: Callable[[Tape, str, str, str], str]) -> Rule:
    """A function of each element, by the gradient, the operand and the result."""

    def rule(tape: Tape, node: Proto, upstream: str) -> Gradients:
        return [formula(tape, upstream, node.input[0], node.output[0])]

    return rule


def _binary(*formulas: Callable[[Tape, str, str, str, str], str]) -> Rule:
    """A function of pairs, by the gradient, the operands and the result; operands broadcast."""

    def rule(tape: Tape, node: Proto, upstream: str) -> Gradients:
        a, b = node.input
        shape = tape.shape(node.output[0])
        return [
            tape.fitted(formula(tape, upstream, a, b, node.output[0]), shape, tape.shape(name))
            if name in tape.active
            else None
            for formula, name in zip(formulas, (a, b), strict=True)
        ]

    return rule


def _where(tape: Tape, node: Proto, upstream: str) -> Gradients:
    condition, a, b = node.input
    shape = tape.shape(node.output[0])
    return [
        None,
        tape.fitted(tape("Where", condition, upstream, 0.0), shape, tape.shape(a)),
        tape.fitted(tape("Where", condition, 0.0, upstream), shape, tape.shape(b)),
    ]


def _sum(tape: Tape, node: Proto, upstream: str) -> Gradients:
    shape = tape.shape(node.output[0])
    return [tape.fitted(upstream, shape, tape.shape(name)) for name in node.input]


def _reshape(tape: Tape, node: Proto, upstream: str) -> Gradients:
    return [tape.reshaped(upstream, tape.shape(node.input[0]))]


def _transpose(tape: Tape, node: Proto, upstream: str) -> Gradients:
    rank = len(tape.shape(node.input[0]))
    order = attributes(node).get("perm", list(range(rank))[::-1])
    return [tape("Transpose", upstream, perm=[int(i) for i in np.argsort(order)])]


def _concat(tape: Tape, node: Proto, upstream: str) -> Gradients:
    axis, start, parts = attributes(node)["axis"], 0, list[str]()
    for name in node.input:
        size = tape.shape(name)[axis]
        places = [np.array([at], np.int64) for at in (start, start + size, axis)]
        parts.append(tape("Slice", upstream, *map(tape.constant, places)))
        start += size
    return parts


def _swapped(tape: Tape, x: str, rank: int) -> str:
    return tape("Transpose", x, perm=[*range(rank - 2), rank - 1, rank - 2])


def _matmul(tape: Tape, node: Proto, upstream: str) -> Gradients:
    """Products of stacks of matrices; a vector is a row before, a column behind."""
    a, b = node.input
    left, right = tape.shape(a), tape.shape(b)
    rows = left if len(left) > 1 else (1, *left)
    columns = right if len(right) > 1 else (*right, 1)
    stack = np.broadcast_shapes(rows[:-2], columns[:-2])
    result = (*stack, rows[-2], columns[-1])
    g = tape.reshaped(upstream, result)
    parts: list[str | None] = [None, None]
    if a in tape.active:
        other = _swapped(tape, tape.reshaped(b, columns), len(columns))
        product = tape.fitted(tape("MatMul", g, other), (*stack, *rows[-2:]), rows)
        parts[0] = tape.reshaped(product, left)
    if b in tape.active:
        other = _swapped(tape, tape.reshaped(a, rows), len(rows))
        product = tape.fitted(tape("MatMul", other, g), (*stack, *columns[-2:]), columns)
        parts[1] = tape.reshaped(product, right)
    return parts


def _gemm(tape: Tape, node: Proto, upstream: str) -> Gradients:
    options = {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 0, **attributes(node)}
    a, b, *bias = node.input
    g = tape("Mul", upstream, options["alpha"])
    across = options["transA"], options["transB"]
    # With A' and B' as they are multiplied: dA' = g B'^T, dB' = A'^T g.
    da = (g, b, 0, 1 - across[1]) if not across[0] else (b, g, across[1], 1)
    db = (a, g, 1 - across[0], 0) if not across[1] else (g, a, 1, across[0])
    parts: list[str | None] = [
        tape("Gemm", x, y, transA=int(first), transB=int(second))
        for x, y, first, second in (da, db)
    ]
    if bias and bias[0]:
        shape = tape.shape(node.output[0])
        parts.append(
            tape.fitted(tape("Mul", upstream, options["beta"]), shape, tape.shape(bias[0]))
        )
    return parts


def _reduction(*, mean: bool) -> Rule:
    def rule(tape: Tape, node: Proto, upstream: str) -> Gradients:
        shape = tape.shape(node.input[0])
        axes = attributes(node).get("axes")
        if axes is None and len(node.input) > 1:
            axes = _known(tape, node.input[1])
        if not axes and not attributes(node).get("noop_with_empty_axes", 0):
            axes = range(len(shape))
        chosen = {int(axis) % len(shape) for axis in axes or ()}
        kept = [1 if axis in chosen else size for axis, size in enumerate(shape)]
        wide = tape("Mul", tape.reshaped(upstream, kept), tape.full(node.input[0], 1.0))
        count = math.prod(shape[axis] for axis in chosen)
        return [tape("Div", wide, float(count)) if mean else wide]

    return rule


def _known(tape: Tape, name: str) -> list[int]:
    import onnx

    for tensor in tape.graph.initializer:
        if tensor.name == name:
            return [int(axis) for axis in onnx.numpy_helper.to_array(tensor).ravel()]
    raise ModelError(f"a gradient through a reduction needs constant axes, not {name!r}")


def _softmax_axis(tape: Tape, node: Proto) -> int:
    rank = len(tape.shape(node.input[0]))
    latest = tape.opset >= _SOFTMAX_HAS_AXIS
    axis = int(attributes(node).get("axis", -1 if latest else 1)) % rank
    if not latest and axis != rank - 1:
        raise ModelError(f"a gradient through {node.op_type} of several axes is not supported")
    return axis


def _softmax(tape: Tape, node: Proto, upstream: str) -> Gradients:
    y = node.output[0]
    total = tape.summed(tape("Mul", upstream, y), [_softmax_axis(tape, node)])
    return [tape("Mul", tape("Sub", upstream, total), y)]


def _log_softmax(tape: Tape, node: Proto, upstream: str) -> Gradients:
    total = tape.summed(upstream, [_softmax_axis(tape, node)])
    return [tape("Sub", upstream, tape("Mul", tape("Exp", node.output[0]), total))]


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "Abs": _unary(lambda t, g, x, y: t("Mul", g, t("Sign", x))),
        "Add": _binary(lambda t, g, a, b, y: g, lambda t, g, a, b, y: g),
        "Concat": _concat,
        "Cos": _unary(lambda t, g, x, y: t("Neg", t("Mul", g, t("Sin", x)))),
        "Div": _binary(
            lambda t, g, a, b, y: t("Div", g, b),
            lambda t, g, a, b, y: t("Neg", t("Div", t("Mul", g, y), b)),
        ),
        "Erf": _unary(
            lambda t, g, x, y: t(
                "Mul",
                t("Mul", g, 2 / math.sqrt(math.pi)),
                t("Exp", t("Neg", t("Mul", x, x))),
            )
        ),
        "Exp": _unary(lambda t, g, x, y: t("Mul", g, y)),
        "Flatten": _reshape,
        "Gemm": _gemm,
        "Identity": _unary(lambda t, g, x, y: g),
        "Log": _unary(lambda t, g, x, y: t("Div", g, x)),
        "LogSoftmax": _log_softmax,
        "MatMul": _matmul,
        "Mul": _binary(
            lambda t, g, a, b, y: t("Mul", g, b),
            lambda t, g, a, b, y: t("Mul", g, a),
        ),
        "Neg": _unary(lambda t, g, x, y: t("Neg", g)),
        "Pow": _binary(
            lambda t, g, a, b, y: t("Mul", t("Mul", g, b), t("Pow", a, t("Sub", b, 1.0))),
            lambda t, g, a, b, y: t("Mul", t("Mul", g, y), t("Log", a)),
        ),
        "Reciprocal": _unary(lambda t, g, x, y: t("Neg", t("Mul", g, t("Mul", y, y)))),
        "ReduceMean": _reduction(mean=True),
        "ReduceSum": _reduction(mean=False),
        "Relu": _unary(lambda t, g, x, y: t("Where", t("Greater", x, 0.0), g, 0.0)),
        "Reshape": _reshape,
        "Sigmoid": _unary(lambda t, g, x, y: t("Mul", g, t("Mul", y, t("Sub", 1.0, y)))),
        "Sin": _unary(lambda t, g, x, y: t("Mul", g, t("Cos", x))),
        "Softmax": _softmax,
        "Softplus": _unary(lambda t, g, x, y: t("Mul", g, t("Sigmoid", x))),
        "Sqrt": _unary(lambda t, g, x, y: t("Div", g, t("Mul", y, 2.0))),
        "Squeeze": _reshape,
        "Sub": _binary(lambda t, g, a, b, y: g, lambda t, g, a, b, y: t("Neg", g)),
        "Sum": _sum,
        "Tanh": _unary(lambda t, g, x, y: t("Mul", g, t("Sub", 1.0, t("Mul", y, y)))),
        "Transpose": _transpose,
        "Unsqueeze": _reshape,
        "Where": _where,
    }
)
