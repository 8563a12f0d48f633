"""Tensors of one number."""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from hybridc.compiler.frontends.aten.call import Call, Converter
from hybridc.compiler.frontends.onnx.node import Expr
from hybridc.compiler.ir.rewrite import constant


def _filled(c: Call) -> Expr:
    """Whatever stood in the tensor whose shape it takes."""
    ((shape, _), *_) = c.results
    number = constant(np.asarray(c["fill_value"]), c.part)
    return c.scope.broadcast_to(number, list(shape)) if shape else number


CONVERTERS: Mapping[str, Converter] = MappingProxyType(
    {"full.default": _filled, "full_like.default": _filled}
)
