"""Operators that TVM's importer turns into opaque loop nests, imported as Relax operators instead.

A loop nest is a wall for the graph passes: no layout passes through it and nothing folds into it.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import tvm
from tvm import relax
from tvm.relax.frontend.onnx.onnx_frontend import ONNXGraphImporter

Attributes = Mapping[str, Any]
Converter = Callable[[Sequence[Any], Attributes], Any]


class Importer(ONNXGraphImporter):
    """TVM's importer, with our converters ahead of its own."""

    def _convert_operator(
        self, op_name: str, inputs: list[Any], attrs: dict[str, Any], opset: int
    ) -> Any:
        if op_name == "Resize":
            _drop_empty_scales(inputs)
        converter = _CONVERTERS.get(op_name)
        converted = None if converter is None else converter(inputs, attrs)
        if converted is None:
            return super()._convert_operator(op_name, inputs, attrs, opset)
        return self.bb.normalize(converted)


def _drop_empty_scales(inputs: list[Any]) -> None:
    """Sizes stand beside scales without elements in opset 11, where no input could be left out."""
    if len(inputs) > 3 and isinstance(inputs[2], tvm.ir.GenericConst):
        inputs[2] = inputs[2] if inputs[2].value.numpy().size else None


def _clip(inputs: Sequence[Any], attrs: Attributes) -> Any:
    """Bounds are attributes before opset 11, then inputs; one that is missing or NaN is none."""
    x = inputs[0]
    dtype = str(x.ty.dtype)
    bounds = [_bound(inputs, attrs, 1, "min"), _bound(inputs, attrs, 2, "max")]
    if "dynamic" in bounds:
        return None
    low, high = bounds
    if low is not None:
        x = relax.op.maximum(x, relax.const(low, dtype))
    if high is not None:
        x = relax.op.minimum(x, relax.const(high, dtype))
    return x


def _bound(inputs: Sequence[Any], attrs: Attributes, index: int, name: str) -> Any:
    """A bound's value, None where there is none, or "dynamic"."""
    given = inputs[index] if len(inputs) > index else None
    if given is None:
        value = attrs.get(name)
    elif isinstance(given, tvm.ir.GenericConst):
        value = given.value.numpy().item()
    else:
        return "dynamic"
    return None if value is None or np.isnan(value) else value


def _pad(inputs: Sequence[Any], attrs: Attributes) -> Any:
    """Constant padding by constant widths; crops and the other modes are left to TVM."""
    if attrs.get("mode", b"constant") != b"constant" or len(inputs) < 2:
        return None
    x, widths, *rest = inputs
    value, axes = ([*rest, None, None])[:2]
    constants = [item for item in (widths, value, axes) if item is not None]
    if not all(isinstance(item, tvm.ir.GenericConst) for item in constants):
        return None
    rank = len(x.ty.shape.values)
    before, after = np.split(widths.value.numpy(), 2)
    padded = range(rank) if axes is None else [int(a) % rank for a in axes.value.numpy()]
    pairs = np.zeros((rank, 2), int)
    for axis, low, high in zip(padded, before, after, strict=True):
        pairs[axis] = low, high
    fill = 0.0 if value is None else value.value.numpy().item()
    if (pairs < 0).any() or str(x.ty.dtype) != "float32":
        return None
    return relax.op.nn.pad(x, pairs.ravel().tolist(), "constant", fill)


def _dynamic_quantize(inputs: Sequence[Any], attrs: Attributes) -> Any:
    """Scale and zero point from the range of x and zero; all zeros have the scale 1, not 0."""
    x = inputs[0]
    zero, steps = (relax.const(value, "float32") for value in (0.0, 255.0))
    low = relax.op.minimum(relax.op.min(x), zero)
    high = relax.op.maximum(relax.op.max(x), zero)
    width = relax.op.subtract(high, low)
    one = relax.const(1.0, "float32")
    scale = relax.op.where(relax.op.equal(width, zero), one, relax.op.divide(width, steps))
    offset = relax.op.round(relax.op.divide(relax.op.subtract(zero, low), scale))
    saturated = relax.op.minimum(relax.op.maximum(offset, zero), steps)
    point = relax.op.astype(saturated, "uint8")
    quantized = relax.op.quantize(x, scale, point, axis=0, out_dtype="uint8")
    return relax.Tuple([quantized, scale, point])


def _lp_pool(inputs: Sequence[Any], attrs: Attributes) -> Any:
    """The p-norm of windows, those at the end that reach beyond the padding too.

    TVM multiplies their averages, which leave out what lies beyond, by the whole window.
    """
    x, window = inputs[0], [int(extent) for extent in attrs["kernel_shape"]]
    count = len(window)
    pools = {1: relax.op.nn.avg_pool1d, 2: relax.op.nn.avg_pool2d, 3: relax.op.nn.avg_pool3d}
    automatic = attrs.get("auto_pad", b"NOTSET") != b"NOTSET"
    if automatic or not attrs.get("ceil_mode", 0) or count not in pools:
        return None
    strides, dilation = (
        [int(step) for step in attrs.get(name, [1] * count)] for name in ("strides", "dilations")
    )
    padding = [int(width) for width in attrs.get("pads", [0] * 2 * count)]
    for i, extent in enumerate(x.ty.shape.values[2:]):
        end, stride = int(extent) + padding[i], strides[i]
        reach = dilation[i] * (window[i] - 1) + 1
        last = -(-(end + padding[count + i] - reach) // stride)
        last -= last * stride >= end  # a window that begins behind the image is none
        padding[count + i] = max(0, last * stride + reach - end)
    order, dtype = float(attrs.get("p", 2)), str(x.ty.dtype)
    power, root, size = (relax.const(v, dtype) for v in (order, 1 / order, math.prod(window)))
    raised = relax.op.power(relax.op.abs(x), power)
    mean = pools[count](raised, window, strides, padding, dilation, count_include_pad=True)
    return relax.op.power(relax.op.multiply(mean, size), root)


_CONVERTERS: Mapping[str, Converter] = MappingProxyType(
    {
        "Clip": _clip,
        "DynamicQuantizeLinear": _dynamic_quantize,
        "LpPool": _lp_pool,
        "Pad": _pad,
    }
)
