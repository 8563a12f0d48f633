"""Write ONNX Runtime's own operators, most of the domain com.microsoft, with ONNX's.

Its optimiser makes them of a model's layers, so that files hold them which nobody wrote by hand.
Written out they are what exporters write, and the passes fuse and schedule them like that.
A form that is not written stays, and ONNX Runtime computes it.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from hybridc.compiler.frontends.onnx_graph import (
    microsoft_attention,
    microsoft_blocks,
    microsoft_experts,
    microsoft_grouped,
    microsoft_quantized,
    microsoft_rotary,
)
from hybridc.compiler.frontends.onnx_graph.branches import Branch
from hybridc.compiler.frontends.onnx_graph.formulas import Formulas, Known, UnwrittenError
from hybridc.compiler.frontends.onnx_graph.model_file import Proto
from hybridc.compiler.frontends.onnx_graph.writer import domain_of

DOMAIN = "com.microsoft"
_NORMALIZATION_SINCE = 17  # the opset that has LayerNormalization


def written_out(
    node: Proto,
    types: Mapping[str, Proto],
    opset: int,
    known: Known,
    makers: Mapping[str, Proto] = MappingProxyType({}),
) -> Branch | None:
    """The nodes that take the place of one; None where it is another or has to stay.

    `types` are those of its inputs by name, `known` the constants and the weights, and `makers` the
    nodes before it by what they compute.
    """
    write = _FORMULAS.get((domain_of(node), node.op_type))
    if write is None or (node.op_type == "LayerNormalization" and opset >= _NORMALIZATION_SINCE):
        return None
    formulas = Formulas(node, types, opset, known, makers)
    try:
        write(formulas)
    except UnwrittenError:
        return None
    return Branch(formulas.nodes, list(formulas.graph.initializer))


def _gelu(f: Formulas) -> None:
    f.named(_of_erf(f, f.input(0)))


def _bias_gelu(f: Formulas) -> None:
    f.named(_of_erf(f, f("Add", f.input(0), f.input(1))))


def _of_erf(f: Formulas, x: str) -> str:
    share = f("Add", f("Erf", f("Div", x, np.sqrt(2.0))), 1.0)
    return f("Mul", f("Mul", x, share), 0.5)


def _fast_gelu(f: Formulas) -> None:
    """Gelu by a hyperbolic tangent."""
    x = f("Add", f.input(0), f.input(1)) if f.input(1) else f.input(0)
    cube = f("Mul", f("Mul", x, x), x)
    inner = f("Mul", f("Add", x, f("Mul", cube, 0.044715)), np.sqrt(2 / np.pi))
    f.named(f("Mul", f("Mul", x, 0.5), f("Add", f("Tanh", inner), 1.0)))


def _quick_gelu(f: Formulas) -> None:
    x = f.input(0)
    f.named(f("Mul", x, f("Sigmoid", f("Mul", x, f.attribute("alpha", 1.702)))))


def _layer_normalization(f: Formulas) -> None:
    """ONNX's operator in a model of an opset that does not have it yet."""
    f.refuse(f.attribute("axis", -1) not in (-1, len(f.dims(f.input(0))) - 1), f.wants(1, 2))
    f.named(_normalized(f, f.input(0), (f.input(1), f.input(2)), f.attribute("epsilon", 1e-5)))


def _simplified(f: Formulas) -> None:
    f.refuse(f.attribute("axis", -1) not in (-1, len(f.dims(f.input(0))) - 1), f.wants(1))
    f.named(_scaled(f, f.input(0), f.input(1), f.attribute("epsilon", 1e-5)))


def _normalized(f: Formulas, x: str, weights: tuple[str, str], epsilon: float) -> str:
    """Less the mean, over the deviation, along the last axis; the bias may be left out."""
    scale, bias = weights
    if f.opset >= _NORMALIZATION_SINCE:
        inputs = [x, scale, bias] if bias else [x, scale]
        return f.emit("LayerNormalization", inputs, axis=-1, epsilon=float(epsilon))
    centred = f("Sub", x, f.averaged(x))
    variance = f.averaged(f("Mul", centred, centred))
    made = f("Mul", f("Div", centred, f("Sqrt", f("Add", variance, epsilon))), scale)
    return f("Add", made, bias) if bias else made


def _scaled(f: Formulas, x: str, scale: str, epsilon: float) -> str:
    """Over the root of the mean square along the last axis, computed in float32."""
    narrow = f.number_type
    f.number_type = "float32"
    wide = x if narrow == "float32" else f.cast(x, "float32")
    squares = f.averaged(f("Mul", wide, wide))
    made = f("Div", wide, f("Sqrt", f("Add", squares, epsilon)))
    f.number_type = narrow
    return f("Mul", made if narrow == "float32" else f.cast(made, narrow), scale)


def _skipped(f: Formulas, bias: str) -> str:
    """The sum that is normalised, which may be the last output too."""
    x = f("Add", f.input(0), f.input(1))
    x = f("Add", x, bias) if bias else x
    f.named(x, 3)
    f.refuse(f.wants(1, 2))
    return x


def _skip_normalization(f: Formulas) -> None:
    x = _skipped(f, f.input(4))
    weights = f.input(2), f.input(3)
    f.named(_normalized(f, x, weights, f.attribute("epsilon", 1e-12)))


def _skip_simplified(f: Formulas) -> None:
    f.named(_scaled(f, _skipped(f, f.input(3)), f.input(2), f.attribute("epsilon", 1e-12)))


def _embedding(f: Formulas) -> None:
    f.refuse(f.attribute("mask_index_type", 1) != 1)
    x = _embedded(f, f.input(8), lambda _, rows: rows)
    f.named(x, 2)
    f.named(_normalized(f, x, (f.input(5), f.input(6)), f.attribute("epsilon", 1e-12)))


def _byte_embedding(f: Formulas) -> None:
    """QEmbedLayerNormalization: each table and weight is of bytes with a scale and a zero point."""

    def read(index: int, rows: str) -> str:
        return f.emit("DequantizeLinear", [rows, f.input(index + 6), f.input(index + 11)])

    weights = read(5, f.input(5)), read(6, f.input(6))
    x = _embedded(f, "", read)
    f.named(_normalized(f, x, weights, f.attribute("epsilon", 1e-12)))


def _embedded(f: Formulas, places: str, read: Callable[[int, str], str]) -> str:
    """Embeddings of tokens, positions and segments, added; names the lengths of masked sequences.

    `read` gives the numbers of what was chosen of an input, which it is told by its index.
    """
    ids, segments, mask = (f.input(i) for i in (0, 1, 7))
    words, positions, kinds = (f.input(i) for i in (2, 3, 4))
    if places:
        placed = f("Gather", positions, places)
    else:
        end = f.reshaped(f.size(ids, 1), 1)
        placed = f("Slice", positions, f.ints(0), end, f.ints(0))
    x = f("Add", read(2, f("Gather", words, ids)), read(3, placed))
    if f.wants(1):
        f.named(_lengths(f, ids, mask), 1)
    return f("Add", x, read(4, f("Gather", kinds, segments))) if segments else x


def _lengths(f: Formulas, ids: str, mask: str) -> str:
    """How many tokens of each sequence are not masked; zeros where nothing tells."""
    import onnx

    if mask:
        one = f.constant(np.array(1, np.int32))
        return f.summed(f.cast(f("Equal", mask, one), "int32"), 1)
    many = f("Shape", f("Gather", ids, f.constant(np.array(0, np.int64)), axis=1))
    return f("ConstantOfShape", many, value=onnx.numpy_helper.from_array(np.zeros(1, np.int32)))


def _matmul(f: Formulas) -> None:
    """A product of matrices, each perhaps transposed, times a number."""
    product = f("MatMul", _turned(f, 0, "A"), _turned(f, 1, "B"))
    alpha = f.attribute("alpha", 1.0)
    f.named(product if alpha == 1.0 else f("Mul", product, alpha))


def _turned(f: Formulas, index: int, letter: str) -> str:
    """An operand as its flags say: rows and columns exchanged, rows before the batches' axes."""
    x = f.input(index)
    order = list(range(len(f.dims(x))))
    if f.attribute(f"transBatch{letter}", 0):
        f.refuse(len(order) < 3)
        order = [*order[1:-1], 0, order[-1]]
    if f.attribute(f"trans{letter}", 0) and len(order) >= 2:
        order[-2:] = [order[-1], order[-2]]
    return x if order == sorted(order) else f("Transpose", x, perm=order)


def _gemm(f: Formulas) -> None:
    kept = {name: f.attribute(name, 0) for name in ("transA", "transB")}
    factors = {name: f.attribute(name, 1.0) for name in ("alpha", "beta")}
    inputs = [name for name in f.node.input if name]
    y = f.emit("Gemm", inputs, **kept, **factors)
    options = [f.attribute(f"activation_{name}", None) for name in ("alpha", "beta")]
    f.named(_activated(f, y, [each for each in options if each is not None]))


def _conv(f: Formulas) -> None:
    """A convolution, what is added to it, and an activation."""
    own = ("activation", "activation_params")
    y = f.emit("Conv", [name for name in f.node.input[:3] if name])
    f.nodes[-1].attribute.extend(a for a in f.node.attribute if a.name not in own)
    y = f("Add", y, f.input(3)) if f.input(3) else y
    f.named(_activated(f, y, list(f.attribute("activation_params", []))))


def _activated(f: Formulas, x: str, options: list[float]) -> str:
    activation = f.attribute("activation", "")
    if not activation:
        return x
    if activation in ("Relu", "Tanh", "Sigmoid", "Softplus"):
        return f(activation, x)
    if activation == "LeakyRelu":
        return f(activation, x, alpha=options[0] if options else 0.01)
    if activation == "HardSigmoid" and len(options) == 2:
        return f(activation, x, alpha=options[0], beta=options[1])
    f.refuse(activation != "Clip" or len(options) != 2)
    return f("Clip", x, *options)


_FORMULAS: Mapping[tuple[str, str], Callable[[Formulas], None]] = MappingProxyType(
    {
        ("", "LayerNormalization"): _layer_normalization,
        ("", "SimplifiedLayerNormalization"): _simplified,
        (DOMAIN, "BiasGelu"): _bias_gelu,
        (DOMAIN, "EmbedLayerNormalization"): _embedding,
        (DOMAIN, "FastGelu"): _fast_gelu,
        (DOMAIN, "FusedConv"): _conv,
        (DOMAIN, "FusedGemm"): _gemm,
        (DOMAIN, "FusedMatMul"): _matmul,
        (DOMAIN, "Gelu"): _gelu,
        (DOMAIN, "QEmbedLayerNormalization"): _byte_embedding,
        (DOMAIN, "QuickGelu"): _quick_gelu,
        (DOMAIN, "SimplifiedLayerNormalization"): _simplified,
        (DOMAIN, "SkipLayerNormalization"): _skip_normalization,
        (DOMAIN, "SkipSimplifiedLayerNormalization"): _skip_simplified,
        (DOMAIN, "TransposeMatMul"): _matmul,
        **{
            (DOMAIN, name): write
            for family in (
                microsoft_attention,
                microsoft_blocks,
                microsoft_experts,
                microsoft_grouped,
                microsoft_quantized,
                microsoft_rotary,
            )
            for name, write in family.FORMULAS.items()
        },
    }
)
OPERATORS = frozenset(_FORMULAS)
