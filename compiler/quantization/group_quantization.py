"""Weights as small integers with a scale for each output channel and group of inputs.

`w[k, n]` is held as `q[k, n] * scale[k // size, n]`, with q an integer of 8 or 4 bits and the
scale a bfloat16.  A product of so few bits is a float32 exactly, so dequantised weights are the
same numbers wherever and in whatever order they are computed.  Without a search every weight is
within half a step, `scale / 2`, of what it was.
"""

from dataclasses import dataclass
from math import lcm

import ml_dtypes
import numpy as np

from hybridc.compiler.model import Array

# The largest integer of so many bits; the scheme is symmetric, the one below the least is unused.
LEVELS = {8: 127, 4: 7}
_BYTE, _WORD = 8, 32
# Shares of the largest weight that a search maps to the largest integer: fewer levels for the
# rare large weights, finer steps for all others.  Below 0.6 none was best of 10^4 normal groups.
_SHARES = np.linspace(1.0, 0.6, 17, dtype=np.float32)
# Columns that a search takes at a time, for its copies to stay in the cache.
_COLUMNS = 64


@dataclass(frozen=True)
class Grouped:
    """Quantised weights: `integers` `[groups * size, N]`, zeros behind K; `scales` `[groups, N]`.

    `scales` are float32 numbers that bfloat16 holds too.  Of K inputs the first `inputs` count.
    """

    integers: Array
    scales: Array
    size: int
    inputs: int
    bits: int

    def dequantized(self) -> Array:
        """The weights `[K, N]` that the integers stand for, in float32."""
        wide = self.integers.astype(np.float32) * np.repeat(self.scales, self.size, axis=0)
        weights: Array = wide[: self.inputs]
        return weights


def group_size(inputs: int, group: int, multiple: int = 1) -> int:
    """Inputs of each of the fewest groups of at most `group`, as even as may be.

    Groups of 32 divide 100 inputs into 4 groups of 25; what is rounded up to a `multiple` adds
    fewer zeros than a last group of 32 would.
    """
    most = max(group // multiple, 1) * multiple
    groups = -(-inputs // min(most, inputs))
    size = -(-inputs // groups)
    return -(-size // multiple) * multiple


def quantize(
    weight: Array, bits: int, group: int, search: bool = False, multiple: int = 1
) -> Grouped:
    """Quantise `[K, N]` float32 weights, which are finite, by groups of up to `group` inputs.

    Groups are multiples of `multiple`, and of 4 bits of 8.  `search` takes for each group the
    scale with the least sum of squared errors of several, which may cut off its largest weights.
    """
    inputs, outputs = weight.shape
    size = group_size(inputs, group, lcm(per_element(bits), multiple))
    groups = -(-inputs // size)
    padded = np.zeros((groups * size, outputs), np.float32)
    padded[:inputs] = weight
    grouped = padded.reshape(groups, size, outputs)
    scales = np.empty((groups, outputs), np.float32)
    integers = np.empty(grouped.shape, np.int8)
    for start in range(0, outputs, _COLUMNS):
        part = np.s_[..., start : start + _COLUMNS]
        columns = np.ascontiguousarray(grouped[part])
        scales[part] = _scales(columns, LEVELS[bits], search)
        integers[part] = _rounded(columns, scales[part], LEVELS[bits])
    return Grouped(integers.reshape(-1, outputs), scales, size, inputs, bits)


def packed(quantized: Grouped, width: int) -> tuple[Array, Array]:
    """Integers and scales in panels of `width` output channels, zeros behind the last.

    Integers of 8 bits come as `[N / width, K, width]`.  Of 4 bits, eight successive inputs share a
    32-bit word, `[N / width, K / 8, width]`, the first in its lowest bits: each of them is two
    shifts of a vector of words away.  Scales are `[N / width, groups, width]` in bfloat16.
    """
    rows, outputs = quantized.integers.shape
    columns = -(-outputs // width) * width
    integers = np.zeros((rows, columns), np.int8)
    integers[:, :outputs] = quantized.integers
    scales = np.zeros((quantized.scales.shape[0], columns), np.float32)
    scales[:, :outputs] = quantized.scales
    panels = in_panels(integers, width)
    share = per_element(quantized.bits)
    if share > 1:
        panels = _words(panels, quantized.bits, share)
    return panels, in_panels(scales, width).astype(ml_dtypes.bfloat16)


def unpacked(integers: Array, bits: int) -> Array:
    """The integers `[N / width, K, width]` that `packed` put into elements of its own."""
    share = per_element(bits)
    if share == 1:
        return integers
    panels, words, width = integers.shape
    made = np.empty((panels, words, share, width), np.int8)
    for place in range(share):  # up to the sign's place, and down again with the sign
        made[:, :, place] = integers << (_WORD - bits - place * bits) >> (_WORD - bits)
    return made.reshape(panels, words * share, width)


def per_element(bits: int) -> int:
    """How many integers of so many bits an element of the packed weights holds."""
    return 1 if bits == _BYTE else _WORD // bits


def _words(panels: Array, bits: int, share: int) -> Array:
    words = np.zeros((panels.shape[0], panels.shape[1] // share, panels.shape[2]), np.uint32)
    for place in range(share):
        low = panels[:, place::share].astype(np.uint32) & (2**bits - 1)
        words |= low << np.uint32(place * bits)
    return words.view(np.int32)


def in_panels(matrix: Array, width: int) -> Array:
    """`[rows, N]` as panels `[N / width, rows, width]`, zeros behind the last column."""
    rows, outputs = matrix.shape
    padded = matrix
    if outputs % width:
        padded = np.zeros((rows, outputs + -outputs % width), matrix.dtype)
        padded[:, :outputs] = matrix
    made = padded.reshape(rows, -1, width).transpose(1, 0, 2)
    return np.ascontiguousarray(made)


def _scales(groups: Array, levels: int, search: bool) -> Array:
    """The scale of each group and column of `[groups, size, columns]`."""
    largest = np.abs(groups).max(axis=1)
    best = _narrow(largest / levels)
    if not search:
        return best
    least = _error(groups, best, levels)
    for share in _SHARES[1:]:
        scales = _narrow(largest * (share / levels))
        error = _error(groups, scales, levels)
        better = error < least
        best, least = np.where(better, scales, best), np.where(better, error, least)
    return best


def _narrow(scales: Array) -> Array:
    """Scales as bfloat16 has them; none is zero, or subnormal, which some instructions drop.

    Rounded by up to 2^-9, the largest weight is at most 127.25 steps: less than half from 127.
    """
    floor = np.float32(np.finfo(np.float32).tiny)
    narrow: Array = np.maximum(scales, floor).astype(ml_dtypes.bfloat16).astype(np.float32)
    return narrow


def _rounded(groups: Array, scales: Array, levels: int) -> Array:
    steps = np.rint(groups / scales[:, np.newaxis])
    integers: Array = np.clip(steps, -levels, levels).astype(np.int8)
    return integers


def _error(groups: Array, scales: Array, levels: int) -> Array:
    """The sum of squared errors of each group and column."""
    wide = _rounded(groups, scales, levels) * scales[:, np.newaxis]
    error: Array = np.square(wide - groups).sum(axis=1)
    return error
