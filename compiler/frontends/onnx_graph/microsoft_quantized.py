"""ONNX Runtime's operators on bytes that give floats, written with ONNX's."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from hybridc.compiler.frontends.onnx_graph import microsoft_attention
from hybridc.compiler.frontends.onnx_graph.formulas import Formulas


def _product(f: Formulas, operands: tuple[str, str], zeros: tuple[str, str], scale: str) -> str:
    """A product of bytes less their zero points, as floats."""
    inputs = [*operands, *zeros]
    while not inputs[-1]:
        inputs.pop()
    return f("Mul", f.cast(f.emit("MatMulInteger", inputs), "float32"), scale)


def _added(f: Formulas, product: str, bias: str) -> str:
    return f("Add", product, bias) if bias else product


def _to_float(f: Formulas) -> None:
    """MatMulIntegerToFloat."""
    f.refuse(f.number_type != "float32")
    scale = f("Mul", f.input(2), f.input(3))
    product = _product(f, (f.input(0), f.input(1)), (f.input(4), f.input(5)), scale)
    f.named(_added(f, product, f.input(6)))


def _dynamic(f: Formulas) -> None:
    """DynamicQuantizeMatMul: floats in the bytes of their own range, times bytes."""
    import onnx

    f.refuse(f.number_type != "float32")
    names = [f"{f.prefix}/{kind}" for kind in ("bytes", "scale", "zero")]
    f.nodes.append(onnx.helper.make_node("DynamicQuantizeLinear", [f.input(0)], names))
    scale = f("Mul", names[1], f.input(2))
    product = _product(f, (names[0], f.input(1)), (names[2], f.input(3)), scale)
    f.named(_added(f, product, f.input(4)))


def _attention(f: Formulas) -> None:
    """QAttention: projections of bytes, and attention in floats."""
    microsoft_attention.refuse_unknown(f)
    f.refuse(f.number_type != "float32")
    scale = f("Mul", f.input(3), f.input(4))
    product = _product(f, (f.input(0), f.input(1)), (f.input(6), f.input(7)), scale)
    sizes = [f.fixed(f.input(1), 1) // 3] * 3
    parts = f.split(_added(f, product, f.input(2)), sizes)
    microsoft_attention.core(f, parts, sizes, {"mask": 5, "past": 8})


FORMULAS: Mapping[str, Callable[[Formulas], None]] = MappingProxyType(
    {
        "DynamicQuantizeMatMul": _dynamic,
        "MatMulIntegerToFloat": _to_float,
        "QAttention": _attention,
    }
)
