"""Convolutions of images whose height, width or number is open, by strips of their pixels."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
import tvm
from tvm import tirx

from hybridc.compiler import pipeline, target
from hybridc.compiler.building.build import compile_kernel
from hybridc.compiler.interfaces import Context
from hybridc.compiler.kernels.products import contractions, packing
from hybridc.compiler.kernels.products.contractions import Conv2d
from hybridc.passes.schedule import Schedule

_SIZES = {name: tirx.Var(name, "int64") for name in "nhw"}


@dataclass(frozen=True)
class Layer:
    """A convolution without padding, of images `image` whose sizes may be names."""

    image: tuple[int | str, int | str, int | str]
    inputs: int
    outputs: int
    window: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    def kernel(self, weight: Any) -> tuple[Any, Any]:
        """The kernel, and the weights that it reads."""
        each = self.inputs // self.groups
        conv = Conv2d(self.stride, (0, 0, 0, 0), self.dilation, self.groups, each)
        shape: Any = (*(_SIZES.get(str(size), size) for size in self.image), self.inputs)
        last = np.ascontiguousarray(weight.transpose(0, 2, 3, 1))
        if self.groups == self.inputs > 1:
            taps = np.ascontiguousarray(last[..., 0].transpose(1, 2, 0))
            return contractions.depthwise_conv2d(shape, taps.shape, conv, "float32"), taps
        packed, groups = packing.pack_filter(last, self.groups, 16, 1)
        merged = replace(conv, groups=groups)
        return contractions.conv2d(shape, packed, self.outputs, merged, "float32"), packed


_LAYERS = {
    "row": Layer((1, 1, "w"), 16, 20, (1, 3)),
    "dilated": Layer((1, 1, "w"), 12, 32, (1, 3), dilation=(1, 4)),
    "audio": Layer((1, 1, "w"), 1, 24, (1, 10), stride=(1, 5)),
    "grouped": Layer((1, 1, "w"), 32, 32, (1, 3), stride=(1, 2), groups=4),
    "depthwise": Layer((1, 1, "w"), 24, 24, (1, 5), dilation=(1, 2), groups=24),
    "image": Layer(("n", "h", "w"), 8, 16, (3, 3), stride=(2, 1)),
    "high": Layer((1, "h", 9), 8, 16, (3, 3)),
    "wide": Layer((1, 5, "w"), 8, 16, (3, 3), dilation=(2, 1)),
    "depthwise image": Layer((1, "h", "w"), 16, 16, (3, 3), stride=(1, 2), groups=16),
}


# TVM takes nine seconds to compile this one.
_NAMES = [
    pytest.param(name, marks=pytest.mark.slow) if name == "grouped" else name for name in _LAYERS
]


@pytest.mark.parametrize("name", _NAMES)
def test_images_of_any_size(name: str) -> None:
    layer = _LAYERS[name]
    rng = np.random.default_rng(3)
    filters = (layer.outputs, layer.inputs // layer.groups, *layer.window)
    weight = rng.standard_normal(filters).astype(np.float32)
    func, packed = layer.kernel(weight)
    device = target.parse("cpu", 1)
    context = Context(device, pipeline.rules())
    module = Schedule().apply(tvm.IRModule({"main": func}), context)
    assert {record.rule for record in context.kernels} <= {"conv2d", "depthwise-conv2d"}
    run = compile_kernel(module["main"], device).jit()["main"]
    for n, made in ((1, 1), (2, 2), (1, 3), (3, 4), (1, 13), (1, 17), (1, 63), (2, 64), (1, 131)):
        reach = [d * (k - 1) + 1 for k, d in zip(layer.window, layer.dilation, strict=True)]
        least = [(made - 1) * s + r for s, r in zip(layer.stride, reach, strict=True)]
        sizes = {"n": n, "h": least[0] if made < 64 else reach[0], "w": least[1] + n // 2}
        image = [sizes.get(str(size), size) for size in layer.image]
        x = rng.standard_normal([*image, layer.inputs]).astype(np.float32)  # pyright: ignore[reportArgumentType, reportCallIssue]
        options = (layer.stride, 0, layer.dilation, layer.groups)
        last = torch.from_numpy(x).permute(0, 3, 1, 2)
        wanted = torch.nn.functional.conv2d(last, torch.from_numpy(weight), None, *options)
        shape = [*wanted.permute(0, 2, 3, 1).shape]
        y = tvm.runtime.tensor(np.full(shape, np.nan, np.float32))
        run(tvm.runtime.tensor(x), tvm.runtime.tensor(packed), y)
        np.testing.assert_allclose(y.numpy(), wanted.permute(0, 2, 3, 1), 1e-4, 1e-4)
