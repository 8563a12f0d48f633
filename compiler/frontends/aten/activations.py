"""Activations of which TVM's importer reads no more than the first number, or none."""

from collections.abc import Mapping
from types import MappingProxyType

from hybridc.compiler.frontends.aten.binary import operand
from hybridc.compiler.frontends.aten.call import Call, Converter
from hybridc.compiler.frontends.onnx.node import Expr


def _exponential_unit(c: Call) -> Expr:
    """`scale * (x if x > 0 else alpha * (exp(input_scale * x) - 1))`: elu, selu and celu."""
    s, x = c.scope, c["self"]
    scaled = x if c["input_scale"] == 1 else s.multiply(x, c["input_scale"])
    low = s.multiply(s.subtract(s.exp(scaled), 1.0), c["alpha"])
    result = s.where(s.greater(x, 0.0), x, low)
    return result if c["scale"] == 1 else s.multiply(result, c["scale"])


def _between(c: Call) -> Expr:
    """The hard hyperbolic tangent, and the rectifier that is 6 at most."""
    low, high = operand(c, "min_val", c.part), operand(c, "max_val", c.part)
    return c.scope.minimum(c.scope.maximum(c["self"], low), high)


CONVERTERS: Mapping[str, Converter] = MappingProxyType(
    {"elu.default": _exponential_unit, "hardtanh.default": _between}
)
