"""ONNX Runtime's mixtures of experts, written with ONNX's operators.

Every expert computes every token, and the weights of those that a token is not sent to are zero:
so shapes depend on no data.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from hybridc.compiler.frontends.onnx_graph.formulas import Formulas
from hybridc.compiler.frontends.onnx_graph.microsoft_blocks import dequantized, signed, unpacked
from hybridc.compiler.model import Array

_BYTE = 8


@dataclass(frozen=True)
class _Layer:
    """The places of an expert's weights, scales, biases and zeros among a node's inputs."""

    weights: int
    bias: int
    scales: int = 0
    zeros: int = 0


_PLAIN = (_Layer(2, 3), _Layer(4, 5), _Layer(6, 7))
_PACKED = (_Layer(2, 4, 3, 11), _Layer(5, 7, 6, 12), _Layer(8, 10, 9, 13))


def _experts(f: Formulas) -> None:
    _mixture(f, _PLAIN, "")


def _packed_experts(f: Formulas) -> None:
    f.refuse(f.attribute("quant_type", "int") != "int", *(f.input(i) for i in range(15, 21)))
    f.refuse(f.attribute("weights_prepacked", 0) == 1)
    _mixture(f, _PACKED, f.input(14))


def _mixture(f: Formulas, layers: tuple[_Layer, _Layer, _Layer], weights: str) -> None:
    f.refuse(f.attribute("use_sparse_mixer", 0))
    x, rank = f.widened(f.input(0)), len(f.dims(f.input(0)))
    hidden, experts = f.fixed(f.input(0), rank - 1), f.fixed(f.input(1), 1)
    flat = f.reshaped(x, -1, hidden) if rank == 3 else x
    shares = _routed(f, f.widened(f.input(1)), weights, experts)
    narrow, f.number_type = f.number_type, "float32"
    total = ""
    for expert in range(experts):
        made = _expert(f, flat, layers, expert)
        share = f("Slice", shares, f.ints(expert), f.ints(expert + 1), f.ints(1))
        term = f("Mul", made, share)
        total = f("Add", total, term) if total else term
    if rank == 3:
        total = f("Reshape", total, f("Shape", f.input(0)))
    f.number_type = narrow
    f.named(f.narrowed(total))


def _routed(f: Formulas, scores: str, weights: str, experts: int) -> str:
    """The weight of each expert for each token, zero where it is not among the best."""
    import onnx

    count = f.attribute("k", 1)
    names = [f"{f.prefix}/best", f"{f.prefix}/which"]
    f.nodes.append(onnx.helper.make_node("TopK", [scores, f.ints(count)], names, axis=-1))
    best = f("GatherElements", f.widened(weights), names[1], axis=1) if weights else names[0]
    narrow, f.number_type = f.number_type, "float32"
    if weights:
        if f.attribute("normalize_routing_weights", 0):
            best = f("Div", best, f.emit("ReduceSum", [best, f.ints(-1)], keepdims=1))
    elif f.attribute("normalize_routing_weights", 0) or f.node.op_type == "QMoE":
        best = f("Softmax", best, axis=-1)
    else:
        best = f("GatherElements", f("Softmax", scores, axis=-1), names[1], axis=1)
    each = f.constant(np.arange(experts).reshape(1, 1, -1))
    chosen = f("Where", f("Equal", f.expanded(names[1], 2), each), f.expanded(best, 2), 0.0)
    f.number_type = narrow
    return f.emit("ReduceSum", [chosen, f.ints(1)], keepdims=0)


def _expert(f: Formulas, x: str, layers: tuple[_Layer, _Layer, _Layer], expert: int) -> str:
    """What one expert makes of all tokens."""
    kind = f.attribute("activation_type", "relu").lower()
    inner = _linear(f, x, layers[0], expert, "fc1")
    if kind == "swiglu":
        inner = _gated(f, inner)
        f.refuse(f.input(layers[2].weights))
    else:
        inner = _activated(f, inner, kind)
        if f.input(layers[2].weights):
            inner = f("Mul", inner, _linear(f, x, layers[2], expert, "fc3"))
    return _linear(f, inner, layers[1], expert, "fc2")


def _gated(f: Formulas, x: str) -> str:
    """SwiGLU of gates and values that stand beside each other, or in two halves."""
    fusion = f.attribute("swiglu_fusion", 0)
    f.refuse(fusion not in (1, 2))
    alpha, beta = f.attribute("activation_alpha", 1.0), f.attribute("activation_beta", 0.0)
    inner = f.fixed(f.input(2), 1) // 2
    pairs = f.reshaped(x, -1, inner, 2) if fusion == 1 else f.reshaped(x, -1, 2, inner)
    parts = f.split(pairs, [1, 1], axis=2 if fusion == 1 else 1)
    gate, value = (f.reshaped(each, -1, inner) for each in parts)
    if (limit := f.attribute("swiglu_limit", np.inf)) < np.inf:
        gate = f("Min", gate, limit)
        value = f("Max", f("Min", value, limit), -limit)
    share = f("Sigmoid", f("Mul", gate, alpha))
    return f("Mul", f("Mul", gate, share), f("Add", value, beta))


def _activated(f: Formulas, x: str, kind: str) -> str:
    f.refuse(kind not in ("relu", "gelu", "silu", "identity"))
    if kind == "relu":
        return f("Relu", x)
    if kind == "silu":
        return f("Mul", x, f("Sigmoid", x))
    if kind == "gelu":
        cube = f("Mul", f("Mul", x, x), x)
        inner = f("Mul", f("Add", x, f("Mul", cube, 0.044715)), np.sqrt(2 / np.pi))
        return f("Mul", f("Mul", x, 0.5), f("Add", f("Tanh", inner), 1.0))
    return x


def _linear(f: Formulas, x: str, layer: _Layer, expert: int, name: str) -> str:
    """A linear layer of one expert, whose weights are `[N, K]`."""
    weights = f.value(f.input(layer.weights))[expert]
    if layer.scales:
        matrix = _unpacked(f, weights, layer, expert, name)
    else:
        matrix = f.constant(np.ascontiguousarray(weights.astype(np.float32).T))
    y = f("MatMul", x, matrix)
    if not f.input(layer.bias):
        return y
    return f("Add", y, f.constant(f.value(f.input(layer.bias))[expert].astype(np.float32)))


def _unpacked(f: Formulas, packed: Array, layer: _Layer, expert: int, name: str) -> str:
    bits = f.attribute(f"{name}_expert_weight_bits", f.attribute("expert_weight_bits", 4))
    depth = packed.shape[-1] * _BYTE // bits
    size = f.attribute("block_size", 0)
    size = size if size > 0 else depth
    integers = signed(unpacked(packed, bits, depth), bits).T
    scales = f.value(f.input(layer.scales))[expert].astype(np.float32)
    scales = scales.reshape(len(packed), -1).T
    zeros = None
    if f.input(layer.zeros):
        given = f.value(f.input(layer.zeros))[expert]
        if f.attribute("block_size", 0) > 0:
            whole = unpacked(given.reshape(len(packed), -1), bits, len(scales)).T
        else:
            whole = unpacked(given, bits, len(packed))[np.newaxis]
        zeros = np.ascontiguousarray(signed(whole, bits))
    return dequantized(f, integers, scales, zeros, size)


FORMULAS: Mapping[str, Callable[[Formulas], None]] = MappingProxyType(
    {"MoE": _experts, "QMoE": _packed_experts}
)
