"""Sizes as floats, which exporters scale and round: exact as long as only powers of two divide.

float32 holds such numbers exactly up to 2^24 of their steps, beyond the sizes that there are.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from hybridc.compiler.frontends.onnx_import.size_calls import Call, each
from hybridc.compiler.frontends.onnx_import.sizes import Fraction, Numbers, UnknownError

_KINDS = {1: "float32", 6: "int32", 7: "int64", 9: "bool", 11: "float64"}  # by ONNX's numbers
# What keeps fractions as they are, or computes with them here.
_TAKES_FRACTIONS = frozenset(
    {
        *("Add", "Cast", "Ceil", "Concat", "Div", "Floor", "Gather", "Identity", "Mul", "Neg"),
        *("Reshape", "Slice", "Split", "Squeeze", "Sub", "Unsqueeze"),
    }
)


def suits(operator: str, operands: Any) -> bool:
    """Whether an operator can be computed although some numbers may be fractions."""
    if operator in _TAKES_FRACTIONS:
        return True
    numbers = (value for each in operands if each is not None for value in each.values.flat)
    return not any(isinstance(value, Fraction) for value in numbers)


def _pair(value: Any) -> tuple[Any, int]:
    return (value.over, value.under) if isinstance(value, Fraction) else (value, 1)


def _made(over: Any, under: int) -> Any:
    return over if under == 1 else Fraction(over, under)


def _added(sign: int) -> Callable[[Any, Any], Any]:
    def add(a: Any, b: Any) -> Any:
        (a, n), (b, m) = _pair(a), _pair(b)
        return _made(a * m + b * n * sign, n * m)

    return add


def _times(a: Any, b: Any) -> Any:
    (a, n), (b, m) = _pair(a), _pair(b)
    return _made(a * b, n * m)


def _floor(value: Any) -> Any:
    over, under = _pair(value)
    return over if under == 1 else over // under


def _divided(call: Call) -> Numbers:
    """Integers as ONNX divides them; floats by a constant power of two."""
    if not call.input(0).dtype.startswith("float"):
        return call.same(each(call.sizes.quotient, call.array(), call.array(1)))

    def over(a: Any, b: Any) -> Any:
        if not isinstance(b, int) or b < 1 or b & (b - 1):
            raise UnknownError
        return _times(a, _made(1, b))

    return call.same(each(over, call.array(), call.array(1)))


def _cast(call: Call) -> Numbers:
    kind, given = _KINDS.get(call.options["to"]), call.input(0)
    if kind is None:
        raise UnknownError
    array = given.values if given.dtype != "bool" else given.values * 1
    if kind == "bool":
        return Numbers(each(lambda a: call.sizes.truth(_pair(a)[0] != 0), array), kind)
    return Numbers(array if kind.startswith("float") else each(_whole(call), array), kind)


def _whole(call: Call) -> Callable[[Any], Any]:
    def whole(value: Any) -> Any:
        over, under = _pair(value)
        if under > 1 and not call.sizes.truth(over >= 0):  # casts round towards zero
            raise UnknownError
        return _floor(value)

    return whole


def _each(function: Callable[..., Any]) -> Callable[[Call], Numbers]:
    def compute(call: Call) -> Numbers:
        return call.same(each(function, *(call.array(i) for i in range(len(call.given)))))

    return compute


ARITHMETIC: Mapping[str, Callable[[Call], Numbers]] = MappingProxyType(
    {
        "Add": _each(_added(1)),
        "Cast": _cast,
        "Ceil": _each(lambda a: _times(-1, _floor(_times(-1, a)))),
        "Div": _divided,
        "Floor": _each(_floor),
        "Identity": _each(lambda a: a),
        "Mul": _each(_times),
        "Neg": _each(lambda a: _times(-1, a)),
        "Sub": _each(_added(-1)),
    }
)
