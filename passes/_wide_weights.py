"""Weights of 16 bits that are multiplied in fp32: in the type of memory, or of the multiplication.

Widening them takes instructions that start where multiply-adds do: 128 x 768 x 768 runs at 160
GFLOP/s with weights of bfloat16, at 173 with those of float32, and at 176 in fp32 throughout
(Emerald Rapids, one thread).  So kernels read float32, made of them when the artifact is loaded,
unless they wait for their weights.
"""

from dataclasses import dataclass
from math import prod

from hybridc.compiler.ir.rewrite import Expr, are_known, operator, shape
from hybridc.compiler.kernels.products import packing
from hybridc.compiler.model import Array
from hybridc.compiler.quantization import compression
from hybridc.compiler.target import Target

# By type, the precision whose instructions multiply it.
_PRECISIONS = {"bfloat16": "bf16", "float16": "fp16"}
_FLOAT = 4  # bytes
_MATRIX = 2  # axes; more are of several


@dataclass(frozen=True)
class Product:
    """What a call multiplies by constant weights: a convolution, or a product of matrices."""

    call: Expr
    weight: Array

    @property
    def sides(self) -> tuple[int, int]:
        """Depth and columns of each of its matrices."""
        if operator(self.call) == "nn.conv2d":
            return prod(self.weight.shape[1:]), self.weight.shape[0]
        return self.weight.shape[-2], self.weight.shape[-1]

    @property
    def rows(self) -> int | None:
        """The rows that meet each matrix; None if they are open."""
        leading = shape(self.call)[:-1]
        matrices = operator(self.call) == "matmul" and self.weight.ndim > _MATRIX
        counted = leading[-1:] if matrices else leading
        return prod(counted) if are_known(counted) else None


@dataclass(frozen=True)
class Widener:
    """Puts float32 in place of weights of 16 bits, of which a file holds what they were.

    `known` are those that it put there.  Weights are `near` where they stay in the last cache from
    one run to the next.
    """

    known: compression.Known
    near: bool
    target: Target

    def widened(self, made: Product) -> Array | None:
        """The weights in float32; None where their kernel reads them as they are."""
        precision = _PRECISIONS.get(made.weight.dtype.name)
        if precision is None or self.target.faster(precision) > 1.0:
            return None
        if _waits(made, self.near, self.target):
            return None
        return compression.widened(self.known, made.weight)


def meets_pairs(packed: Array, target: Target) -> bool:
    """Whether activations are float32 where they meet pairs of weights, which are widened alone."""
    return packed.dtype.name == "bfloat16" and target.faster("bf16") == 1.0


def _waits(made: Product, near: bool, target: Target) -> bool:
    """Whether a product is faster for half the bytes than it is slower for widening them."""
    rows, (depth, columns) = made.rows, made.sides
    if rows is None or not packing.waits_for_weights(rows, depth, columns, target):
        return False
    machine = target.machine
    fed = machine.l3_bytes_per_cycle if near else machine.dram_bytes_per_cycle
    moved = _FLOAT * target.lanes() / fed  # cycles for a vector of float32
    # Widening a vector takes one of the instructions that multiply-adds of a row take as well.
    multiplied, widening = (count / machine.fma_per_cycle for count in (rows, 1))
    return max(multiplied + widening, moved / 2) < max(multiplied, moved)
