"""The algorithms of a 3x3 convolution of stride 1: direct, and Winograd's by each tile.

They are kernels that are never run in a model: without what is fused into them there, and each
with weights packed in an order of its own.  What is measured of them tells which one a model takes.
"""

from dataclasses import replace
from functools import lru_cache

import numpy as np

from hybridc.compiler.hardware import cached_weights
from hybridc.compiler.interfaces import Context, IRModule, PrimFunc
from hybridc.compiler.kernel_record import Alternatives, KernelRecord, State
from hybridc.compiler.kernels.convolutions import winograd, winograd_transforms
from hybridc.compiler.kernels.convolutions.winograd_work import Choice, Layer
from hybridc.compiler.kernels.products import contractions, vector_width
from hybridc.compiler.kernels.products.contractions import Conv2d
from hybridc.compiler.log import keys
from hybridc.compiler.model import Array
from hybridc.compiler.target import Target

_WINDOW = 3
# Packed weights are larger: Winograd's up to four times, and not every layer takes it.
_GROWTH = 2
_KNOWN = 64  # layers of which the kernels are kept: networks repeat theirs


def is_minimal(conv: Conv2d, weight: Array, target: Target) -> bool:
    """Whether Winograd's filtering applies: 3x3, every pixel, one group, of fp32 or bytes.

    Its tiles need images of known size.

    Its transforms would lose most of what bfloat16 keeps, and make infinite weights NaN.  Bytes
    become 16 bits wide, as which CPUs without an instruction for them multiply them anyway.
    """
    dense = conv.strides == conv.dilation == (1, 1) and conv.groups == 1
    if not dense or conv.made is not None or weight.shape[1:3] != (_WINDOW, _WINDOW):
        return False
    if weight.dtype == np.int8:
        return not target.multiplies_bytes and winograd_transforms.fits_integers(weight)
    return weight.dtype == np.float32 and winograd_transforms.fits_floats(weight)


def fastest(layer: Layer, choices: tuple[Choice, ...], context: Context) -> Choice:
    """The choice that was measured to be fastest for a layer in fp32, else the first."""
    if context.advice is None:
        return choices[0]
    mode: State = "warm" if layer.near else "cold"
    among = replace(alternatives(layer, choices, context.target), mode=mode)
    index = context.advice.fastest(among)
    if index is None:
        return choices[0]
    record = KernelRecord(among.name, among.rules[index], {}, {}, workload=among.workloads[index])
    if record not in context.algorithms:
        context.algorithms.append(record)
    return choices[index]


def stay_near(module: IRModule, target: Target) -> bool:
    """Whether the module's weights, once they are packed, stay in the last cache."""
    packed = _GROWTH * cached_weights.weight_bytes(module)
    return cached_weights.state(packed, target) == "warm"


@lru_cache(_KNOWN)
def alternatives(layer: Layer, choices: tuple[Choice, ...], target: Target) -> Alternatives:
    """The kernels of these choices, in fp32."""
    kernels = tuple(_kernel(layer, choice, target) for choice in choices)
    batch, height, width, channels = layer.shape
    size = f"{height}x{width}" if batch == 1 else f"{batch}x{height}x{width}"
    return Alternatives(
        name=f"3x3 convolution of {size}, {channels} to {layer.columns} channels",
        algorithms=tuple(_named(choice) for choice in choices),
        rules=tuple("winograd-conv2d" if choice.side else "conv2d" for choice in choices),
        kernels=kernels,
        workloads=tuple(keys.of_kernel(kernel).key for kernel in kernels),
    )


def _named(choice: Choice) -> str:
    return f"Winograd F({choice.side}, 3)" if choice.side else "direct"


def _kernel(layer: Layer, choice: Choice, target: Target) -> PrimFunc:
    shape, columns, conv = layer.shape, layer.columns, layer.conv
    if not choice.side:
        lanes = vector_width.lanes_for(columns, 1, target)
        packed = _shaped(-(-columns // lanes), _WINDOW, _WINDOW, shape[3], lanes)
        return contractions.conv2d(shape, packed, columns, conv, "float32", "float32")
    lanes, tile = target.lanes(), choice.side + _WINDOW - 1
    packed = _shaped(tile, tile, -(-columns // lanes), shape[3], lanes)
    return winograd.conv2d(shape, packed, columns, conv, choice.tiles)


def _shaped(*shape: int) -> Array:
    """Weights of a shape that take no memory: kernels are made of their shape alone."""
    return np.broadcast_to(np.zeros((), np.float32), shape)
