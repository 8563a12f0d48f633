"""The products of a graph that may be computed in 8 bits: what they multiply, and samples of it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import relax, tirx

from hybridc.compiler.ir.rewrite import Expr, Graph, bindings_of, graph_of, operator, shape
from hybridc.compiler.model import Array

# Half of what int32 holds: the other half is left to zero points and bias.
_DEEPEST = 2**30 // (255 * 127)


@dataclass(frozen=True)
class Product:
    """A convolution (NCHW) or a matrix product with constant float32 weights.

    `name` is the operator with its number among those of its kind, in the order of the graph.
    """

    name: str
    variable: Expr
    call: Expr
    weight: Array

    @property
    def data(self) -> Expr:
        """The variable that it reads."""
        return self.call.args[0]

    @property
    def convolves(self) -> bool:
        """Whether it is a convolution."""
        return operator(self.call) == "nn.conv2d"

    @property
    def groups(self) -> int:
        """Groups of channels that are multiplied apart."""
        return int(self.call.attrs.groups) if self.convolves else 1

    @property
    def channel(self) -> int:
        """The axis of the weights that runs along the output channels."""
        return 0 if self.convolves else 1

    @property
    def macs(self) -> int:
        """Multiplications of one call."""
        outputs = int(np.prod(shape(self.call)))
        return int(outputs * self.weight.size // self.weight.shape[self.channel])

    def describe(self) -> str:
        """`conv2d-3 64x32x3x3`."""
        return f"{self.name} {'x'.join(map(str, self.weight.shape))}"

    def matrix(self, weight: Array) -> Array:
        """The weights as [groups, depth, outputs of a group]."""
        if not self.convolves:
            return weight[np.newaxis]
        outputs = weight.shape[0] // self.groups
        return weight.reshape(self.groups, outputs, -1).transpose(0, 2, 1)

    def rows(self, data: Array, count: int, draw: np.random.Generator) -> Array:
        """Rows that the matrix multiplies at random places, as [groups, rows, depth].

        No place comes twice, so that there may be fewer than `count`.
        """
        if not self.convolves:
            flat = data.reshape(-1, data.shape[-1])
            return flat[_places(len(flat), count, draw)][np.newaxis]
        patches = self._patches(data, count, draw)
        return patches.reshape(len(patches), self.groups, -1).transpose(1, 0, 2)

    def _patches(self, data: Array, count: int, draw: np.random.Generator) -> Array:
        """What a convolution reads for outputs at random places: [places, channels, kh, kw]."""
        attrs = self.call.attrs
        top, left, bottom, right = (int(pad) for pad in attrs.padding)
        padded = np.pad(data, ((0, 0), (0, 0), (top, bottom), (left, right)))
        batch, _, height, width = shape(self.call)
        down, across = (int(step) for step in attrs.strides)
        tall, wide = (int(step) for step in attrs.dilation)
        kernel = self.weight.shape[2:]
        places = _places(batch * height * width, count, draw)[:, None, None, None]
        image, row, column = np.unravel_index(places, (batch, height, width))
        channels = np.arange(data.shape[1])[None, :, None, None]
        row = row * down + np.arange(kernel[0])[None, None, :, None] * tall
        column = column * across + np.arange(kernel[1])[None, None, None, :] * wide
        return padded[image, channels, row, column]


def _places(there_are: int, count: int, draw: np.random.Generator) -> Array:
    """Up to `count` different numbers below `there_are`."""
    return draw.choice(there_are, min(count, there_are), replace=False, shuffle=False)


def find(function: Expr, graph: Graph | None = None) -> tuple[Product, ...]:
    """The products of one function, in the order of the graph."""
    return tuple(_find(function, graph or graph_of(function)))


def _find(function: Expr, graph: Graph) -> Iterator[Product]:
    counts = {"nn.conv2d": 0, "matmul": 0}
    for binding in bindings_of(function):
        kind = operator(binding.value)
        if kind not in counts:
            continue
        weight = _weight(binding.value, graph)
        if weight is not None:
            name = f"{kind.removeprefix('nn.')}-{counts[kind]}"
            counts[kind] += 1
            yield Product(name, binding.var, binding.value, weight)


def _weight(call: Expr, graph: Graph) -> Array | None:
    """The constant weights of what can be multiplied in 8 bits, else None."""
    data, weight = call.args[0], graph.constant(call.args[1])
    if weight is None or weight.dtype != np.float32 or not np.isfinite(weight).all():
        return None
    if not isinstance(data, relax.Var) or graph.constant(data) is not None:
        return None
    if not all(_plain(each) for each in (data, call)):
        return None
    if operator(call) == "matmul":
        fits = weight.ndim == 2 and len(shape(data)) > 1
        return weight if fits and weight.shape[0] <= _DEEPEST else None
    layouts = str(call.attrs.data_layout), str(call.attrs.kernel_layout)
    depth = int(np.prod(weight.shape[1:]))
    return weight if layouts == ("NCHW", "OIHW") and depth <= _DEEPEST else None


def _plain(expr: Any) -> bool:
    """Whether this is a tensor of float32 of known shape, and not empty."""
    extents = getattr(expr.ty, "shape", None)
    known = extents is not None and all(
        isinstance(extent, tirx.IntImm) and extent > 0 for extent in extents.values
    )
    return known and str(expr.ty.dtype) == "float32"
