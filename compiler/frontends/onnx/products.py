"""Products that TVM computes otherwise than BLAS does."""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from hybridc.compiler.frontends.onnx.node import Converter, Expr, Node, dtype
from hybridc.compiler.frontends.onnx_graph.microsoft_blocks import ROUNDABLE
from hybridc.compiler.ir import roundable
from hybridc.compiler.ir.rewrite import constant


def _gemm(node: Node) -> Expr:
    """With beta 0 nothing of C is in the result, NaN least of all; others are left to TVM."""
    if node.input(2) is None or node.get("beta", 1.0) != 0.0:
        return None
    s, alpha = node.scope, node.get("alpha", 1.0)
    a, b = (
        s.permute_dims(operand) if node.get(f"trans{name}", 0) else operand
        for operand, name in zip(node.inputs[:2], "AB", strict=True)
    )
    product = s.matmul(a, b)
    return product if alpha == 1.0 else s.multiply(product, constant(np.array(alpha), dtype(a)))


def _roundable(node: Node) -> Expr:
    return roundable.marked(node.inputs[0])


CONVERTERS: Mapping[str, Converter] = MappingProxyType({"Gemm": _gemm, ROUNDABLE: _roundable})
