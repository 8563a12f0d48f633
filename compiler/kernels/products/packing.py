"""How operands are packed for the instructions that multiply them.

Weights come packed as `[N / lanes, ..., K, lanes]`, so that one vector load brings the weights of
`lanes` output channels and successive k lie behind each other; activations keep channels last.
Types narrower than 32 bits have one more axis, `[N / lanes, ..., K / group, lanes, group]`: the
`group` successive k of one lane whose products a single instruction adds up.
"""

from typing import Any

import numpy as np
from tvm import tirx

from hybridc.compiler.kernels.products import vector_width
from hybridc.compiler.kernels.products.vector_width import holds_groups
from hybridc.compiler.kernels.tensor_expressions import computed, extents
from hybridc.compiler.model import Array
from hybridc.compiler.target import Target

# The block that widens activations, each once and not at every use.
WIDEN = "widen"
# Bits of a lane, in which products are added up.
_LANE = 32
# Rows up to which a product waits for its weights: multiply-adds of a vector of them take as long
# as its way from memory, one a cycle of 64 bytes against 4 bytes a cycle for each of several cores.
FEW_ROWS = 16


def round_up(value: int, multiple: int) -> int:
    """The least multiple that is not below `value`."""
    return -(-value // multiple) * multiple


def group_of(dtype: str) -> int:
    """Successive k that a lane takes at once of weights of this type, where the CPU can.

    No instruction adds up products of neighbours in float16.
    """
    return 1 if dtype == "float16" else max(1, _LANE // _bits(dtype))


def group_for(dtype: str, target: Target) -> int:
    """Successive k that a lane of the target takes at once of weights of this type.

    Four bytes take an instruction that adds up their products in 32 bits.  The older one adds up
    two in 16 bits and saturates: without the newer, bytes are multiplied in pairs of 16 bits.
    """
    return 2 if dtype == "int8" and not target.multiplies_bytes else group_of(dtype)


def group_of_activations(dtype: str, target: Target) -> int:
    """Successive k of two activations of this type that a lane takes at once; 1 in float32."""
    return 1 if dtype == "bfloat16" and target.faster("bf16") == 1.0 else group_of(dtype)


def pack_matrix(weight: Array, lanes: int, group: int = 0) -> Array:
    """Pack `[K, N]` by `lanes` 32-bit columns and `group` successive k, with zeros behind both.

    The group is that of the weights' type where none is given.
    """
    k, n = weight.shape
    group = group or group_of(weight.dtype.name)
    padded = np.zeros((round_up(k, group), round_up(n, lanes)), weight.dtype)
    padded[:k, :n] = weight
    packed = padded.reshape(-1, group, padded.shape[1] // lanes, lanes).transpose(2, 0, 3, 1)
    return np.ascontiguousarray(packed if group > 1 else packed[..., 0])


def waits_for_weights(rows: int, depth: int, columns: int, target: Target) -> bool:
    """Whether a product has few rows, and weights of fp32 that fit no cache of a core."""
    return rows <= FEW_ROWS and depth * columns * 4 > target.l2


def in_pairs(packed: Array) -> Array:
    """Packed weights with a panel of zeros behind an odd number of panels."""
    missing = packed.shape[0] % 2
    return np.concatenate([packed, np.zeros_like(packed[:1])]) if missing else packed


def pack_filter(weight: Array, groups: int, lanes: int, group: int = 0) -> tuple[Array, int]:
    """Pack `[O, KH, KW, I / groups]` as `[O / lanes, KH, KW, I / groups, lanes]`.

    Narrow types are packed by `group` input channels as `pack_matrix` does.
    A vector must not straddle two groups, but may hold several of float32.  Else neighbouring
    groups that find room in one vector are merged into one of block-diagonal weights, and each is
    rounded up to whole vectors, with zeros behind it.  Returns the packed weights and the groups
    left.
    """
    outputs, height, width, inputs = weight.shape
    holds = holds_groups(inputs, outputs // groups, groups, lanes)
    if weight.dtype == np.float32 and holds:
        merge, made = 1, outputs // groups
    else:
        merge = vector_width.merged(outputs // groups, groups, lanes)
        made = round_up(outputs // groups * merge, lanes)
    if merge > 1:
        dense = np.zeros((groups // merge, merge, outputs // groups, height, width, merge, inputs))
        parts = weight.reshape(groups // merge, merge, outputs // groups, height, width, inputs)
        for i in range(merge):
            dense[:, i, :, :, :, i] = parts[:, i]
        weight = dense.reshape(outputs, height, width, merge * inputs).astype(weight.dtype)
        groups //= merge
    group = group or group_of(weight.dtype.name)
    given, depth = weight.shape[3], round_up(weight.shape[3], group)
    padded = np.zeros((groups, made, height, width, depth), weight.dtype)
    apart = weight.reshape(groups, outputs // groups, height, width, given)
    padded[:, : outputs // groups, ..., :given] = apart
    packed = padded.reshape(-1, lanes, height, width, depth // group, group)
    packed = packed.transpose(0, 2, 3, 4, 1, 5)
    return np.ascontiguousarray(packed if group > 1 else packed[..., 0]), groups


def packed_index(block: tuple[Any, ...], k: Any, lane: Any, group: int) -> tuple[Any, ...]:
    """Where an operand that is packed by `group` holds element k of a lane."""
    return (*block, k, lane) if group == 1 else (*block, k // group, lane, k % group)


def whole_groups(x: Any, group: int, wide: bool = False) -> Any:
    """X with zeros behind its last axis up to a whole group, as packed weights have them.

    It comes out as wide as `once_widened` makes it, or in float32.
    """
    *lead, depth = extents(x)
    held = 1 if wide else group
    if depth % group == 0:
        return once_widened(x, held)

    def element(*index: Any) -> Any:
        return tirx.if_then_else(index[-1] < depth, x[index], tirx.const(0, x.dtype))

    return once_widened(computed((*lead, round_up(depth, group)), element, name="pad"), held)


def once_widened(x: Any, group: int) -> Any:
    """X in the type of which a group fills a lane: each element is converted once."""
    bits = _LANE // group
    if _bits(str(x.dtype)) == bits:
        return x
    dtype = f"float{bits}" if "float" in str(x.dtype) else f"int{bits}"
    return computed(extents(x), lambda *i: x[i].astype(dtype), name=WIDEN)


def group_in(packed: Array) -> int:
    """Successive k of a lane in packed weights."""
    return 1 if group_of(packed.dtype.name) == 1 else packed.shape[-1]


def _bits(dtype: str) -> int:
    return 8 * np.dtype(dtype).itemsize
