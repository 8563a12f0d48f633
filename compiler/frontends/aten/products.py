"""Products of matrices, in the type of their operands: TVM's importer makes all of them float32."""

from collections.abc import Mapping
from types import MappingProxyType

from hybridc.compiler.frontends.aten.call import Call, Converter
from hybridc.compiler.frontends.onnx.node import Expr


def _product(second: str) -> Converter:
    def convert(c: Call) -> Expr:
        return c.scope.matmul(c["self"], c[second])

    return convert


def _added(left: str, right: str) -> Converter:
    """beta * self + alpha * left right."""

    def convert(c: Call) -> Expr:
        s, made = c.scope, c.scope.matmul(c[left], c[right])
        if c["alpha"] != 1:
            made = s.multiply(made, c["alpha"])
        if c["beta"] == 0:
            return made
        added = c["self"] if c["beta"] == 1 else s.multiply(c["self"], c["beta"])
        return s.add(made, added)

    return convert


CONVERTERS: Mapping[str, Converter] = MappingProxyType(
    {
        "addmm.default": _added("mat1", "mat2"),
        "baddbmm.default": _added("batch1", "batch2"),
        "bmm.default": _product("mat2"),
        "matmul.default": _product("other"),
        "mm.default": _product("mat2"),
    }
)
