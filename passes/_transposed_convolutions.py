"""Transposed convolutions as one plain convolution for each phase of their output.

Output pixels j, j + s, j + 2s, … of an axis are one phase: they read the same weights, every s-th,
at neighbouring pixels of the input.  The images of all phases are joined along axes of which each
is a stretch of memory, `[N, H, s_h W, s_w C]`, which is the same memory as `[N, H s_h, W s_w, C]`:
so `avoid-copies` lets every convolution write its pixels where they belong.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from tvm import relax

from hybridc.compiler.ir.rewrite import Expr, Graph, operator, shape
from hybridc.compiler.kernels.products.packing import round_up
from hybridc.compiler.target import Target

# Vectors of multiply-adds in the time of which a core copies one element of what is interleaved.
_COPY = 0.5
_IMAGE_RANK = 4


@dataclass(frozen=True)
class Phase:
    """What one phase of an axis reads: every `stride`-th weight from `first` on, `taps` of them.

    They are multiplied with pixels that lie `dilation` apart; `pad` is before and behind the input.
    """

    first: int
    stride: int
    taps: int
    dilation: int
    pad: tuple[int, int]


@dataclass(frozen=True)
class Axis:
    """The phases of an axis of an image, of so many `pixels` each; the last may be too many."""

    phases: tuple[Phase, ...]
    kernel: int
    pixels: int

    @property
    def taps(self) -> int:
        """The weights, each of which is read by one phase."""
        return sum(phase.taps for phase in self.phases)

    @property
    def longest(self) -> int:
        """The taps of the phase with the most."""
        return max(phase.taps for phase in self.phases)


def axis(size: int, kernel: int, steps: tuple[int, int], left: int, output: int) -> Axis | None:
    """The phases of an axis; None if one is no convolution of its input as a whole.

    `steps` are stride and dilation, one of which is 1; `left` pixels are cut off before `output`.
    """
    stride, dilation = steps
    pixels = -(-output // stride)
    found: list[Phase] = []
    for place in range(stride):
        # Output j is element j + left of the full result: input i adds weight j + left - s i.
        base, first = divmod(place + left, stride)
        taps = -(-(kernel - first) // stride)
        pad = ((taps - 1) * dilation - base, pixels + base - size)
        if taps < 1 or min(pad) < 0:
            return None
        found.append(Phase(first, stride, taps, dilation, pad))
    return Axis(tuple(found), kernel, pixels)


def pay(axes: Sequence[Axis], channels: tuple[int, int], target: Target) -> bool:
    """Whether a convolution for each phase takes less than one of all with a copy behind it.

    `channels` are the inputs and outputs of one group.  One convolution has as many taps for every
    phase as the longest, but more outputs to fill vectors with.
    """
    inputs, outputs = channels
    places, lanes = prod(len(found.phases) for found in axes), target.lanes()
    apart = prod(found.taps for found in axes) * round_up(outputs, lanes)
    joint = prod(found.longest for found in axes) * round_up(places * outputs, lanes)
    return inputs * apart / lanes < inputs * joint / lanes + places * outputs * _COPY


def convolved(value: Expr, weight: Expr, axes: Sequence[Axis]) -> Expr:
    """A transposed convolution, NHWC, with IHWO weights; pixels behind the last may be left."""
    tall, wide = axes
    rows = [
        [_convolution(value, weight, axes, (row, column)) for column in wide.phases]
        for row in tall.phases
    ]
    return interleaved(rows, (shape(value)[0], tall.pixels, wide.pixels, shape(value)[3]))


def interleaved(rows: Sequence[Sequence[Expr]], size: Sequence[int]) -> Expr:
    """One image of those, of this size each, whose rows and pixels alternate in it."""
    batch, height, width, channels = size
    joined = [row[0] if len(row) == 1 else relax.op.concat(row, 3) for row in rows]
    image = joined[0] if len(joined) == 1 else relax.op.concat(joined, 2)
    whole = [batch, height * len(rows), width * len(rows[0]), channels]
    return relax.op.reshape(image, whole)


def alternating(value: Expr, graph: Graph) -> list[list[Expr]] | None:
    """The images that `interleaved` made a reshape of, if it did and nothing else reads them."""
    if operator(value) != "reshape" or len(shape(value)) != _IMAGE_RANK:
        return None
    joined = _joined(value.args[0], 2, graph) or [value.args[0]]
    rows = [_joined(image, 3, graph) or [image] for image in joined]
    if len({len(row) for row in rows}) > 1 or len(rows) * len(rows[0]) == 1:
        return None
    batch, height, width, channels = shape(rows[0][0])
    whole = (batch, height * len(rows), width * len(rows[0]), channels)
    return rows if shape(value) == whole else None


def _joined(expr: Expr, place: int, graph: Graph) -> list[Expr] | None:
    """What is concatenated along an axis to `expr`, all of one shape, and read by nothing else."""
    concat = graph.call(expr, "concat")
    if concat is None or concat.attrs.axis is None or len(shape(concat)) != _IMAGE_RANK:
        return None
    inputs = list(graph.value(concat.args[0]).fields)
    alike = len({shape(part) for part in inputs}) == 1
    alone = all(graph.only_use(part) for part in [expr, *inputs])
    return inputs if alike and alone and int(concat.attrs.axis) % _IMAGE_RANK == place else None


def _convolution(value: Expr, weight: Expr, axes: Sequence[Axis], pair: Sequence[Phase]) -> Expr:
    attrs, groups = value.attrs, int(value.attrs.groups)
    return relax.op.nn.conv2d(
        value.args[0],
        _kernel(value, weight, axes, pair),
        padding=[*(phase.pad[0] for phase in pair), *(phase.pad[1] for phase in pair)],
        dilation=[phase.dilation for phase in pair],
        groups=groups,
        data_layout="NHWC",
        kernel_layout="OHWI",
        out_dtype=attrs.out_dtype,
    )


def _kernel(value: Expr, weight: Expr, axes: Sequence[Axis], pair: Sequence[Phase]) -> Expr:
    """The OHWI weights of a phase: every s-th along both sides, the last first."""
    groups, (inputs, *_, outputs) = int(value.attrs.groups), shape(value.args[1])
    first, steps = [phase.first for phase in pair], [phase.stride for phase in pair]
    ends = [found.kernel for found in axes]
    taps = relax.op.strided_slice(weight, [1, 2], first, ends, steps)
    turned = relax.op.flip(relax.op.flip(taps, 1), 2)
    sides = [phase.taps for phase in pair]
    parts = relax.op.reshape(turned, [groups, inputs // groups, *sides, outputs])
    ordered = relax.op.permute_dims(parts, [0, 4, 2, 3, 1])
    return relax.op.reshape(ordered, [groups * outputs, *sides, inputs // groups])
