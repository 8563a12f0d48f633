"""Write elements of less than a byte as the types that carry them (`carriers`).

A value of int4 becomes one of int8 that holds the same number, float4 one of float8, so that what
moves elements needs no change, and casts from them are casts from their carriers.  Casts to them
wrap or round in operators of ONNX's own, exactly as ONNX says.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from hybridc.compiler.errors import ModelError
from hybridc.compiler.frontends.onnx_graph import element_types
from hybridc.compiler.frontends.onnx_graph.element_types import Kinds
from hybridc.compiler.frontends.onnx_graph.model_file import Proto, copied
from hybridc.compiler.frontends.onnx_graph.writer import Place, Writer, opset_of
from hybridc.compiler.runtime import carriers

_BITS: Mapping[str, int] = MappingProxyType({"int2": 2, "int4": 4, "uint2": 2, "uint4": 4})
_FLOAT = "float4_e2m1fn"
_LARGEST = 6.0  # of float4


def declared(proto: Proto) -> Mapping[str, str]:
    """Inputs and outputs of a model that are of less than a byte, with their types."""
    return {
        value.name: element_types.name_of(value.type.tensor_type.elem_type)
        for value in [*proto.graph.input, *proto.graph.output]
        if element_types.name_of(value.type.tensor_type.elem_type) in carriers.CARRIERS
    }


def carried(proto: Proto, types: Mapping[str, Proto]) -> Proto:
    """The model with carriers for all such elements; the one given where it holds none.

    `types` are those of its values.  Raises ModelError for an operator that looks at their bits.
    """
    import onnx

    concerned = any(map(element_types.concerned, element_types.walk(proto.graph)))
    if not concerned and not element_types.holds(proto.graph):
        return proto
    # Of the values within branches and loops too.
    inferred = onnx.shape_inference.infer_shapes(proto)
    kinds = {
        name: element_types.name_of(kind.tensor_type.elem_type) for name, kind in types.items()
    }
    ranks = {name: len(kind.tensor_type.shape.dim) for name, kind in types.items()}
    _rewrite(inferred.graph, kinds, ranks, opset_of(proto))
    return inferred


def _rewrite(graph: Proto, outer: Kinds, ranks: Mapping[str, int], opset: int) -> None:
    kinds = outer | element_types.kinds_of(graph)
    kept: list[Proto] = []
    for index, node in enumerate(graph.node):
        for attribute in node.attribute:
            for inner in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                _rewrite(inner, kinds, ranks, opset)
            for tensor in [attribute.t] if attribute.HasField("t") else attribute.tensors:
                element_types.carry(tensor)
        expand = _EXPANSIONS.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        if expand is None:
            kept.append(node)
        else:
            place = Place(graph, node, f"{_first(node)}/{index}", opset)
            kept.extend(expand(_Writer(place, kinds, ranks)))
    kept = [copied(node) for node in kept]
    del graph.node[:]
    graph.node.extend(kept)
    for tensor in graph.initializer:
        element_types.carry(tensor)
    for value in [*graph.input, *graph.output, *graph.value_info]:
        element_types.carry_type(value.type)


class _Writer(Writer):
    """Makes the nodes that take the place of one, knowing the types around it."""

    def __init__(self, place: Place, kinds: Kinds, ranks: Mapping[str, int]) -> None:
        super().__init__(place)
        self.kinds, self.ranks = kinds, ranks

    @property
    def target(self) -> str:
        """The type of less than a byte that the node makes, or ""."""
        return element_types.narrow(self.kinds.get(self.node.output[0], ""))

    def cast(self, x: str, kind: str, output: str = "") -> str:
        """A cast to a type of ONNX by its name there."""
        import onnx

        return self.emit("Cast", [x], output, to=onnx.TensorProto.DataType.Value(kind))

    @property
    def in_blocks(self) -> bool:
        """Whether the node has a scale for each block of an axis."""
        return bool(self.attribute("block_size", 0))

    def along(self, index: int) -> str:
        """An input as float32: one number, or one for each element of the node's axis."""
        name, rank = self.input(index), self.ranks.get(self.input(0), 0)
        wide = self.cast(name, "FLOAT")
        if not self.ranks.get(name, 0):
            return wide
        axis = int(self.attribute("axis", 1)) % max(rank, 1)
        shape = self.constant(np.array([-1 if at == axis else 1 for at in range(rank)], np.int64))
        return self.emit("Reshape", [wide, shape])


def _cast(writer: _Writer) -> list[Proto]:
    import onnx

    number = writer.attribute("to", 0)
    return _converted(
        writer, element_types.name_of(number) if number != onnx.TensorProto.STRING else ""
    )


def _cast_like(writer: _Writer) -> list[Proto]:
    kind = writer.kinds.get(writer.input(1), "")
    return _converted(writer, kind)


def _converted(writer: _Writer, kind: str) -> list[Proto]:
    if kind not in carriers.CARRIERS:
        return [writer.node]
    _narrow(writer, writer.input(0), kind)
    return writer.nodes


def _narrow(writer: _Writer, x: str, kind: str) -> None:
    """Cast to a type of less than a byte, held by its carrier, as the node's output."""
    if kind == _FLOAT:
        _round(writer, x)
        return
    # To the nearest, ties to even; then the bits that do not fit are left out.
    if "float" in writer.kinds.get(x, "float"):
        x = writer.emit("Round", [writer.cast(x, "FLOAT")])
    whole = writer.cast(x, "INT32")
    size = 2 ** _BITS[kind]
    shift = size // 2 if kind.startswith("int") else 0
    if shift:
        whole = writer.emit("Add", [whole, writer.constant(np.int32(shift))])
    whole = writer.emit("Mod", [whole, writer.constant(np.int32(size))])
    if shift:
        whole = writer.emit("Sub", [whole, writer.constant(np.int32(shift))])
    writer.cast(whole, "INT8" if shift else "UINT8", writer.node.output[0])


def _round(writer: _Writer, x: str) -> None:
    """To the nearest of 0, 0.5, 1, 1.5, 2, 3, 4, 6, ties to even, with x's sign; saturates."""
    wide = writer.cast(x, "FLOAT")

    def number(value: float) -> str:
        return writer.constant(np.float32(value))

    def where(condition: str, one: str, other: str) -> str:
        return writer.emit("Where", [condition, one, other])

    size = writer.emit("Min", [writer.emit("Abs", [wide]), number(_LARGEST)])
    low = writer.emit("Less", [size, number(2)])
    middle = writer.emit("Less", [size, number(4)])
    step = where(low, number(0.5), where(middle, number(1), number(2)))
    rounded = writer.emit("Mul", [writer.emit("Round", [writer.emit("Div", [size, step])]), step])
    # The sign of zero counts, which no comparison with x sees, and which is that of 1 / x.
    below, beyond = (
        writer.emit("Less", [each, number(0)])
        for each in (wide, writer.emit("Div", [number(1), wide]))
    )
    negative = writer.emit("Or", [below, beyond])
    signed = where(negative, writer.emit("Neg", [rounded]), rounded)
    # There is no NaN; ml_dtypes, whose casts are ONNX's, has -0 for it.
    holes = writer.emit("IsNaN", [wide])
    writer.cast(where(holes, number(-0.0), signed), "FLOAT8E4M3FN", writer.node.output[0])


def _quantize(writer: _Writer) -> list[Proto]:
    """Integers saturate in the carrier, and then in what it carries."""
    kind = writer.target or writer.kinds.get(writer.input(2), "")
    if kind not in carriers.CARRIERS:
        return [writer.node]
    if kind == _FLOAT:
        return _quantize_float(writer)
    node = writer.node
    output = str(node.output[0])
    held = carriers.CARRIERS[kind]
    low, high = (0, 2 ** _BITS[kind] - 1) if held == "uint8" else _signed(kind)
    node.output[0] = f"{writer.prefix}/wide"
    for attribute in node.attribute:
        if attribute.name == "output_dtype" and attribute.i:
            attribute.i = element_types.number_of(held)
    bounds = [writer.constant(np.array(bound, held)) for bound in (low, high)]
    writer.emit("Clip", [node.output[0], *bounds], output)
    return [node, *writer.nodes]


def _quantize_float(writer: _Writer) -> list[Proto]:
    if writer.in_blocks:
        raise ModelError("QuantizeLinear to float4 in blocks is not supported")
    x = writer.cast(writer.input(0), "FLOAT")
    quotient = writer.emit("Div", [x, writer.along(1)])
    if writer.input(2):
        quotient = writer.emit("Add", [quotient, writer.along(2)])
    _round(writer, quotient)
    return writer.nodes


def _dequantize(writer: _Writer) -> list[Proto]:
    """Of float4; integers come out of their carriers as they are.  The zero point is zero."""
    if writer.kinds.get(writer.input(0)) != _FLOAT or writer.in_blocks:
        return [writer.node]
    x = writer.cast(writer.input(0), "FLOAT")
    product = writer.emit("Mul", [x, writer.along(1)])
    like = {"to": writer.attribute("output_dtype", 0)}
    if like["to"]:
        writer.emit("Cast", [product], writer.node.output[0], **like)
    else:
        writer.emit("CastLike", [product, writer.input(1)], writer.node.output[0])
    return writer.nodes


def _bit_cast(writer: _Writer) -> list[Proto]:
    """Between integers of one width the number wraps; else the bits would be another's."""
    source, target = element_types.narrow(writer.kinds.get(writer.input(0), "")), writer.target
    if not source and not target:
        return [writer.node]
    if _BITS.get(source, 0) != _BITS.get(target, 1):
        raise ModelError(f"BitCast of {source or 'another type'} to {target or 'another type'}")
    _narrow(writer, writer.input(0), target)
    return writer.nodes


_EXPANSIONS: Mapping[str, Callable[[_Writer], list[Proto]]] = MappingProxyType(
    {
        "BitCast": _bit_cast,
        "Cast": _cast,
        "CastLike": _cast_like,
        "DequantizeLinear": _dequantize,
        "QuantizeLinear": _quantize,
    }
)


def _signed(kind: str) -> tuple[int, int]:
    half = 2 ** (_BITS[kind] - 1)
    return -half, half - 1


def _first(node: Proto) -> str:
    return next((str(name) for name in node.output if name), "")
