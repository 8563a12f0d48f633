"""The hyperbolic tangent of a softplus, ln(1 + e^x): one exponential and no logarithm."""

from tvm import relax

from hybridc.compiler.ir.rewrite import Expr, Graph, operator

# From here on the tangent is 1; e^x squared does not overflow.
_LARGEST = {"float16": 5.0, "bfloat16": 20.0, "float32": 20.0}


def tanh_of(value: Expr, graph: Graph) -> Expr | None:
    """Write `tanh(ln(1 + e^x))` as `n / (n + 2)` with `n = e^x (e^x + 2)`; None for all else.

    Mish is x times this; in pieces it takes exponentials and logarithms of exponentials.
    """
    x, dtype = _softplus(value.args[0], graph), str(value.ty.dtype)
    if x is None or dtype not in _LARGEST:
        return None
    two = relax.const(2.0, dtype)
    grown = relax.op.exp(relax.op.minimum(x, relax.const(_LARGEST[dtype], dtype)))
    n = relax.op.multiply(grown, relax.op.add(grown, two))
    return relax.op.divide(n, relax.op.add(n, two))


def _softplus(expr: Expr, graph: Graph) -> Expr | None:
    """What an expression is the softplus of: an operator, `ln(1 + e^x)`, or without overflow."""
    value = graph.value(expr)
    match operator(value):
        case "nn.softplus":
            return value.args[0] if float(value.attrs.beta) == 1 else None
        case "log":
            return _exponent(value, graph)
        case "add":
            for larger, rest in (value.args, reversed(list(value.args))):
                if (x := _stable(larger, rest, graph)) is not None:
                    return x
            return None
        case _:
            return None


def _stable(larger: Expr, rest: Expr, graph: Graph) -> Expr | None:
    """The x of `max(x, 0) + ln(1 + e^-|x|)`."""
    positive, log = graph.call(larger, "maximum", "nn.relu"), graph.call(rest, "log")
    exponent = None if log is None else _exponent(log, graph)
    sign = None if exponent is None else graph.call(exponent, "negative")
    size = None if sign is None else graph.call(sign.args[0], "abs")
    if positive is None or size is None or not size.args[0].same_as(positive.args[0]):
        return None
    zero = operator(positive) == "nn.relu" or _is(positive.args[1], 0.0, graph)
    return size.args[0] if zero else None


def _exponent(log: Expr, graph: Graph) -> Expr | None:
    """The x of `ln(1 + e^x)`."""
    total = graph.call(log.args[0], "add")
    for power, one in () if total is None else (total.args, reversed(list(total.args))):
        exp = graph.call(power, "exp")
        if exp is not None and _is(one, 1.0, graph):
            return exp.args[0]
    return None


def _is(expr: Expr, number: float, graph: Graph) -> bool:
    found = graph.constant(expr)
    return found is not None and found.size == 1 and float(found.item()) == number
