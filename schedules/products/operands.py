"""How the operands of a product lie: what a step of the depth takes of each."""

from math import prod
from typing import Any

import numpy as np
from tvm import tirx

from hybridc.compiler.interfaces import Schedule
from hybridc.compiler.kernels.products.inner_product import CROSSED

# Bytes of a lane, and of a pair of them.
_LANE, _PAIR = 4, 8


def steps(schedule: Schedule, product: Any) -> int:
    """Multiply-adds that each accumulator takes: the depth, by groups that fill 32 bits."""
    block = schedule.get(product)
    reduced = [
        int(var.dom.extent)
        for var in block.iter_vars
        if int(var.iter_type) == tirx.IterVar.CommReduce
    ]
    lane = _PAIR if paired(schedule, product) else _LANE
    return prod(reduced) * source_bytes(schedule, product) // lane


def source_bytes(schedule: Schedule, product: Any) -> int:
    """Bytes of one element of the activations that the product reads."""
    return np.dtype(str(schedule.get(product).reads[0].source.dtype)).itemsize


def weight_bytes(schedule: Schedule, product: Any) -> int:
    """Bytes of the packed weights that a lane takes in one step of the depth."""
    weight = schedule.get(product).reads[1].source
    group = step_bytes(schedule, product) // source_bytes(schedule, product)
    return group * np.dtype(str(weight.dtype)).itemsize


def step_bytes(schedule: Schedule, product: Any) -> int:
    """Bytes of one row of activations that a step of the depth takes."""
    crossed = CROSSED in schedule.get(product).annotations
    return _PAIR if crossed or paired(schedule, product) else _LANE


def paired(schedule: Schedule, product: Any) -> bool:
    """Whether activations of float32 meet pairs of weights."""
    types = [str(read.source.dtype) for read in list(schedule.get(product).reads)[:2]]
    return types == ["float32", "bfloat16"]


def lanes(schedule: Schedule, product: Any) -> int:
    """Output channels that a vector of the packed weights holds."""
    shape = [int(extent) for extent in schedule.get(product).reads[1].source.shape]
    narrow = source_bytes(schedule, product) < _LANE or paired(schedule, product)
    return shape[-2] if narrow else shape[-1]
