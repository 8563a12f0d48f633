"""What training computes beside inference: masks of dropout, statistics of a batch."""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from hybridc.compiler.errors import UnsupportedError
from hybridc.compiler.frontends.onnx.node import Converter, Expr, Node, dtype
from hybridc.compiler.ir.rewrite import constant

_MASK_KEEPS = 12  # the opset since which a mask of inference is true; ONNX Runtime's was false


def _dropout(node: Node) -> list[Expr] | None:
    """Nothing is dropped in inference, or with the ratio 0; else it would be random."""
    x = node.inputs[0]
    training = bool(np.ravel(node.value(2, False))[0])
    if training and float(np.ravel(node.value(1, 0.5))[0]):
        raise UnsupportedError("training_mode=1, which is random")
    # Before opset 10 the mask had the data's type, and before 12 no meaning in inference.
    kind = "bool" if node.opset >= 10 else dtype(x)
    # Stretched, since the batch may be open.
    mask = constant(np.array(node.opset >= _MASK_KEEPS), kind)
    return [node.scope.emit(x), node.scope.broadcast_to(mask, list(node.shape()))]


def _batch_normalization(node: Node) -> list[Expr] | None:
    """Normalise by the batch's own mean and variance, and move the running ones towards them."""
    if not node.get("training_mode", 0):
        if node.outputs > 1:
            raise UnsupportedError("statistics as outputs")
        return None
    x, scale, bias, mean, variance = node.inputs
    s, shape = node.scope, node.shape()
    axes = [axis for axis in range(len(shape)) if axis != 1]
    wide = dtype(mean)
    data = s.astype(x, wide) if dtype(x) != wide else x
    here = s.mean(data, axis=axes, keepdims=True)
    deviation = s.subtract(data, here)
    spread = s.mean(s.multiply(deviation, deviation), axis=axes, keepdims=True)
    factor = s.rsqrt(s.add(spread, node.get("epsilon", 1e-5)))
    channel = [shape[1] if axis == 1 else 1 for axis in range(len(shape))]
    gain, shift = (
        s.reshape(s.astype(v, wide) if dtype(v) != wide else v, channel) for v in (scale, bias)
    )
    y = s.add(s.multiply(s.multiply(deviation, factor), gain), shift)
    y = s.astype(y, dtype(x)) if dtype(x) != wide else y
    momentum = node.get("momentum", 0.9)
    moved = [
        s.add(s.multiply(old, momentum), s.multiply(s.reshape(new, [-1]), 1 - momentum))
        for old, new in ((mean, here), (variance, spread))
    ]
    return [y, *moved]


CONVERTERS: Mapping[str, Converter] = MappingProxyType(
    {"BatchNormalization": _batch_normalization, "Dropout": _dropout}
)
