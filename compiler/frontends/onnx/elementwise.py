"""Operators on single elements that TVM lacks, or computes for some types or options alone."""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from tvm import te, tirx

from hybridc.compiler.errors import UnsupportedError
from hybridc.compiler.frontends.onnx.node import (
    Converter,
    Expr,
    Node,
    Scope,
    dtype,
    is_float,
)
from hybridc.compiler.ir.rewrite import constant

# Beyond this power of a float a product takes more roundings than the function.
_LARGEST_PRODUCT = 3
_FLOAT_MOST = float(np.finfo(np.float32).max)


def _pow(node: Node) -> Expr:
    """The result has the base's type; integers are multiplied, which is exact.

    Raises UnsupportedError for integers to powers that are known only as the model runs.
    """
    x, y, s = node.inputs[0], node.inputs[1], node.scope
    kind, other = dtype(x), dtype(y)
    known = _constant(y)
    most = _LARGEST_PRODUCT if is_float(x) else math.inf
    if known is not None and known.is_integer() and 0 <= known <= most:
        return _product(node, x, int(known))
    if is_float(x):
        return s.power(x, y if other == kind else s.astype(y, kind))
    if is_float(y):
        wide = "float64"
        return s.astype(s.power(s.astype(x, wide), s.astype(y, wide)), kind)
    # Squares would have to be multiplied by the bits of y, each written out where it is used.
    raise UnsupportedError("integers and powers that are not one constant")


def _constant(value: Expr) -> float | None:
    """The number that a tensor of one element is, or None."""
    held = getattr(value, "value", None)
    array = None if held is None else held.numpy()
    return float(array.item()) if array is not None and array.size == 1 else None


def _product(node: Node, x: Expr, power: int) -> Expr:
    """Square and multiply; the shape is that of x, as a scalar power leaves it."""
    s = node.scope
    more = len(node.shape(1)) - len(node.shape())  # axes of the power, which has one element
    shape = [*[1] * more, *node.shape()]
    result: Expr = None
    square = x
    while power:
        if power & 1:
            result = square if result is None else s.multiply(result, square)
        power >>= 1
        square = s.multiply(square, square) if power else square
    if result is None:
        return s.full(shape, _one(dtype(x)), dtype=dtype(x))
    return result if len(node.shape()) == len(shape) else s.broadcast_to(result, shape)


def _one(kind: str) -> Expr:
    return constant(np.array(1), kind)


def _is_inf(node: Node) -> Expr:
    x, s = node.inputs[0], node.scope
    positive, negative = (node.get(f"detect_{sign}", 1) for sign in ("positive", "negative"))
    if positive and negative:
        return s.isinf(x)
    if not positive and not negative:
        return s.not_equal(s.isinf(x), s.isinf(x))
    sign = s.greater(x, 0.0) if positive else s.less(x, 0.0)
    return s.logical_and(s.isinf(x), sign)


def _exponential_unit(alpha: float, gamma: float) -> Converter:
    """Elu and Selu: `gamma * (x if x > 0 else alpha * (exp(x) - 1))`."""

    def convert(node: Node) -> Expr:
        x, s = node.inputs[0], node.scope
        low = s.multiply(s.subtract(s.exp(x), 1.0), node.get("alpha", alpha))
        result = s.where(s.less(x, 0.0), low, x)
        scale = node.get("gamma", gamma)
        return result if scale == 1 else s.multiply(result, scale)

    return convert


def _celu(node: Node) -> Expr:
    """`max(0, x) + min(0, alpha * (exp(x / alpha) - 1))`: the first where x is not negative."""
    x, s, alpha = node.inputs[0], node.scope, node.get("alpha", 1.0)
    low = s.multiply(s.subtract(s.exp(s.divide(x, alpha)), 1.0), alpha)
    return s.where(s.less(x, 0.0), low, x)


def _mish(node: Node) -> Expr:
    """`x * tanh(ln(1 + e^x))`, where e^x does not overflow: tanh of more than 20 is 1."""
    x, s = node.inputs[0], node.scope
    # With n = e^x (e^x + 2) this is x * n / (n + 2).
    grown = s.exp(s.minimum(x, 20.0 if dtype(x) != "float16" else 5.0))
    n = s.multiply(grown, s.add(grown, 2.0))
    return s.multiply(x, s.divide(n, s.add(n, 2.0)))


def _mod(node: Node) -> Expr:
    """The sign is the divisor's, or with fmod the dividend's; an infinite divisor changes nothing.

    TVM divides, which gives NaN there, and rounds.
    """
    x, y, s = node.inputs[0], node.inputs[1], node.scope
    if is_float(x):
        return _float_mod(node)
    rest = s.subtract(x, s.multiply(_truncated(node), y))
    rest = s.where(s.equal(y, 0), s.subtract(x, x), rest)  # a rest by zero is zero, as in numpy
    if node.get("fmod", 0) or dtype(x).startswith("u"):
        return rest
    zero = s.equal(rest, 0)
    opposite = s.less(s.bitwise_xor(rest, y), 0)
    return s.where(s.logical_and(s.logical_not(zero), opposite), s.add(rest, y), rest)


def _float_mod(node: Node) -> Expr:
    x, y, s = node.inputs[0], node.inputs[1], node.scope
    rest = float_remainder(s, x, y)
    if not node.get("fmod", 0):
        opposite = s.logical_xor(s.less(rest, 0.0), s.less(y, 0.0))
        moved = s.logical_and(s.not_equal(rest, 0.0), opposite)
        rest = s.where(moved, s.add(rest, y), rest)
    return rest


def float_remainder(s: Scope, x: Expr, y: Expr) -> Expr:
    """The remainder of the dividend's sign: exact, also where it is computed in wider floats."""
    kind = dtype(x)
    wide = "float64" if kind == "float64" else "float32"
    function = "fmod" if wide == "float64" else "fmodf"  # of C; TVM has no code for its own

    def remainder(a: Expr, b: Expr) -> Expr:
        called = tirx.call_pure_extern(wide, function, a, b)
        return called if wide == "float64" else _near_remainder(a, b, called)

    rest = _by_element(s, remainder, "fmod", s.as_type(x, wide), s.as_type(y, wide))
    return s.as_type(rest, kind)


def _near_remainder(a: Expr, b: Expr, otherwise: Expr) -> Expr:
    """The remainder of floats of 32 bits by their quotient, where that is below 2^28.

    A quotient of numbers of 24 bits that is no whole number is at least 2^-24 below the next one,
    farther than float64 rounds it there.  Its product with the divisor takes 52 bits.
    """
    x, y = a.astype("float64"), b.astype("float64")
    rest = (x - tirx.trunc(x / y) * y).astype("float32")
    sign, others = tirx.const(-(2**31), "int32"), tirx.const(2**31 - 1, "int32")
    bits = tirx.reinterpret("int32", rest) & others | tirx.reinterpret("int32", a) & sign
    size = tirx.abs(y)
    near = tirx.all(
        tirx.abs(x) < size * tirx.const(2.0**28, "float64"),
        size <= tirx.const(_FLOAT_MOST, "float64"),
    )
    return tirx.if_then_else(near, tirx.reinterpret("float32", bits), otherwise)


def _truncated(node: Node) -> Expr:
    """The quotient of integers, cut towards zero."""
    return _by_element(node.scope, tirx.truncdiv, "quotient", *node.inputs[:2])


def _by_element(
    s: Scope, function: Callable[[Expr, Expr], Expr], name: str, x: Expr, y: Expr
) -> Expr:
    """A function of TIR on two broadcast operands, as a loop nest."""
    # Of a difference that nobody reads: Relax knows how open sizes broadcast.
    shape = list(s.subtract(x, y).ty.shape.values)
    x, y = (s.broadcast_to(value, shape) for value in (x, y))

    def kernel(a: Expr, b: Expr) -> Expr:
        return te.compute(a.shape, lambda *i: function(a(*i), b(*i)), name=name)

    return s.te(kernel, x, y)


def _bit_cast(node: Node) -> Expr:
    """The same bits as another type of the same width."""
    import onnx

    x, s = node.inputs[0], node.scope
    kind = str(onnx.helper.tensor_dtype_to_np_dtype(node.get("to")))
    source = dtype(x)
    if kind == source:
        return x
    if source == "bool" or kind == "bool":
        x, source = (s.astype(x, "uint8"), "uint8") if source == "bool" else (x, source)
        if kind in (source, "bool"):
            return x if kind == source else s.astype(x, "bool")
    if np.dtype(kind).itemsize != np.dtype(source).itemsize:
        raise UnsupportedError(f"a cast of {source} to {kind}, which is of another width")

    def kernel(a: Expr) -> Expr:
        return te.compute(a.shape, lambda *i: tirx.reinterpret(kind, a(*i)), name="bits")

    return s.te(kernel, x)


def _shift(node: Node) -> Expr:
    return shift(node.scope, node.inputs[0], node.inputs[1], node.get("direction") == "LEFT")


def shift(s: Scope, x: Expr, y: Expr, left: bool) -> Expr:
    """A shift by the width or more, or by less than 0, leaves 0, or the sign, as in numpy."""
    kind = dtype(x)
    bits = np.iinfo(kind).bits
    inside = s.less(y, bits)
    if not kind.startswith("u"):
        inside = s.logical_and(inside, s.greater_equal(y, 0))
        if not left:
            last = constant(np.array(bits - 1), kind)
            return s.right_shift(x, s.where(inside, y, last))
    apply = s.left_shift if left else s.right_shift
    shifted = apply(x, s.where(inside, y, s.subtract(y, y)))
    return s.where(inside, shifted, s.subtract(shifted, shifted))


def _hyperbolic(sign: float) -> Converter:
    """Cosh and Sinh by exponentials; TVM's lose digits of float16, and of float64 near 0.

    Half of e^(x/2) twice, so that no infinity comes before the result's.  Near 0 the sine is its
    series, where the difference of exponentials would cancel: the next term is below x^9 / 362880.
    """

    def convert(node: Node) -> Expr:
        x, s = node.inputs[0], node.scope
        wide = s.astype(x, "float32") if dtype(x) == "float16" else x
        up, down = (s.exp(s.multiply(wide, half)) for half in (0.5, -0.5))
        grown, shrunk = (s.multiply(s.multiply(e, 0.5), e) for e in (up, down))
        result = s.add(grown, s.multiply(shrunk, sign))
        if sign < 0:
            square = s.multiply(wide, wide)
            series: Expr = s.add(s.multiply(square, 1 / 5040), 1 / 120)
            series = s.add(s.multiply(series, square), 1 / 6)
            series = s.multiply(wide, s.add(s.multiply(series, square), 1.0))
            limit = 0.01 if dtype(wide) == "float64" else 0.3
            result = s.where(s.less(s.abs(wide), limit), series, result)
        return result if wide is x else s.astype(result, dtype(x))

    return convert


def _softplus(node: Node) -> Expr:
    """`max(x, 0) + ln(1 + e^-|x|)`, which does not overflow."""
    x, s = node.inputs[0], node.scope
    return s.add(s.maximum(x, 0.0), s.log(s.add(s.exp(s.negative(s.abs(x))), 1.0)))


def _sign(node: Node) -> Expr:
    """That of unsigned integers is 0 or 1, that of NaN is NaN; TVM has it of others."""
    x, s = node.inputs[0], node.scope
    if is_float(x):
        return s.where(s.isnan(x), x, s.sign(x))
    return s.astype(s.not_equal(x, 0), dtype(x)) if dtype(x).startswith("u") else None


CONVERTERS: Mapping[str, Converter] = MappingProxyType(
    {
        "BitCast": _bit_cast,
        "BitShift": _shift,
        "Celu": _celu,
        "Cosh": _hyperbolic(1.0),
        "Elu": _exponential_unit(1.0, 1.0),
        "IsInf": _is_inf,
        "Mish": _mish,
        "Mod": _mod,
        "Pow": _pow,
        "Selu": _exponential_unit(1.67326319217681884765625, 1.05070102214813232421875),
        "Sign": _sign,
        "Sinh": _hyperbolic(-1.0),
        "Softplus": _softplus,
    }
)
