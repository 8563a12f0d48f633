"""What torch has a function for, found in a subgraph: convolutions, epilogues, attention."""

from collections.abc import Sequence
from dataclasses import dataclass

from hybridc.compiler.interfaces import NotApplicable
from hybridc.compiler.offload.subgraph import Step, Subgraph


@dataclass(frozen=True)
class Epilogue:
    """What may be computed with a product: a bias, another tensor, and ReLU, in this order.

    `steps` counts those of the product and of these.  `bias` and `other` are numbers of operands,
    added for each channel and for each element.
    """

    steps: int
    bias: int | None = None
    other: int | None = None
    relu: bool = False


@dataclass(frozen=True)
class Convolution:
    """A convolution of images, channels last, as torch's functions take it."""

    padding: tuple[int, int]
    strides: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    epilogue: Epilogue


def convolution(graph: Subgraph) -> Convolution | NotApplicable:
    """The convolution that a subgraph begins with, and what it can be computed with."""
    first = graph.steps[0]
    if first.operator != "nn.conv2d":
        return NotApplicable("it is not a convolution")
    attributes = first.attributes
    layouts = (
        attributes["data_layout"],
        attributes["kernel_layout"],
        attributes["out_layout"] or "NHWC",
    )
    if layouts != ("NHWC", "OHWI", "NHWC"):
        return NotApplicable("its layout is not channels last")
    top, left, bottom, right = attributes["padding"]
    if (top, left) != (bottom, right):
        return NotApplicable("its padding is not the same on both sides")
    strides, dilation = tuple(attributes["strides"]), tuple(attributes["dilation"])
    return Convolution((top, left), strides, dilation, int(attributes["groups"]), epilogue(graph))


def epilogue(graph: Subgraph) -> Epilogue:
    """Bias, another tensor and ReLU behind the first step, in this order, if they are there."""
    place, bias, other = 1, None, None
    found = _added(graph, place)
    if found is not None and _is_bias(graph, found):
        place, bias = place + 1, found
        found = _added(graph, place)
    if found is not None and graph.value(found).shape == graph.steps[0].shape:
        place, other = place + 1, found
    relu = place < len(graph.steps) and graph.steps[place].operator == "nn.relu"
    return Epilogue(place + relu, bias, other, relu)


def _added(graph: Subgraph, place: int) -> int | None:
    """The operand that a step adds to what the step before it gave."""
    if place >= len(graph.steps) or graph.steps[place].operator != "add":
        return None
    before = graph.place(place - 1)
    others = [number for number in graph.steps[place].operands if number != before]
    return others[0] if len(others) == 1 and others[0] < len(graph.operands) else None


def _is_bias(graph: Subgraph, number: int) -> bool:
    *ones, width = graph.operands[number].shape or (0,)
    channels = graph.steps[0].shape[-1]
    return graph.operands[number].constant and width == channels and set(ones) <= {1}


def axes_of(step: Step) -> Sequence[int]:
    """The axes of a transpose; turned around where none are named."""
    axes = step.attributes.get("axes")
    return list(range(len(step.shape)))[::-1] if axes is None else axes


@dataclass(frozen=True)
class Attention:
    """Scaled dot-product attention: numbers of its operands, how these lie, and the scale.

    `axes` bring query, key (as `[batch, heads, rows, depth]`) and value into torch's order;
    `last` are those of the result, None if it stays.
    """

    operands: tuple[int, int, int]
    axes: tuple[Sequence[int], Sequence[int], Sequence[int]]
    scale: float
    mask: int | None
    last: Sequence[int] | None


def attention(graph: Subgraph) -> Attention | NotApplicable:
    """The attention that a whole subgraph is, if torch has words for it."""
    return _Attention(graph).read()


class _Attention:
    def __init__(self, graph: Subgraph) -> None:
        self.graph, self.scale = graph, 1.0
        self.mask: int | None = None

    def read(self) -> Attention | NotApplicable:
        graph = self.graph
        if "nn.softmax" not in graph.operators:
            return NotApplicable("it is not attention")
        last = len(graph.steps) - 1
        turned = graph.steps[last] if graph.steps[last].operator == "permute_dims" else None
        weighted = graph.steps[last - (turned is not None)]
        softmax = self._step(weighted.operands[0])
        if softmax is None or softmax.operator != "nn.softmax" or len(weighted.shape) != 4:
            return NotApplicable("its values are not weighted by a softmax of rank 4")
        if int(softmax.attributes["axis"]) not in (-1, 3):
            return NotApplicable("its softmax is not over the last axis")
        product = self._product(softmax.operands[0])
        if product is None:
            return NotApplicable("its scores are more than a product, a scale and a mask")
        query, key, value = map(self._source, (*product.operands, weighted.operands[1]))
        key = key[0], [key[1][axis] for axis in (0, 1, 3, 2)]
        operands = query[0], key[0], value[0]
        heads = {graph.value(number).shape for number in operands}
        if len({shape[0] for shape in heads}) != 1 or self._repeats(query, key, value):
            return NotApplicable("its keys are broadcast")
        axes = query[1], key[1], value[1]
        end = None if turned is None else axes_of(turned)
        return Attention(operands, axes, self.scale, self.mask, end)

    def _step(self, number: int) -> Step | None:
        place = number - len(self.graph.operands)
        return self.graph.steps[place] if place >= 0 else None

    def _product(self, number: int) -> Step | None:
        """The product behind scores; scale and mask are noted on the way."""
        step = self._step(number)
        while step is not None and step.operator != "matmul":
            scores = self._past(step)
            step = None if scores is None else self._step(scores)
        return step if step is not None and len(step.shape) == 4 else None

    def _past(self, step: Step) -> int | None:
        """What a scale or a mask is applied to; None if it is neither."""
        one, other = step.operands
        if self._step(one) is None:
            if step.operator == "divide":
                return None
            one, other = other, one
        number = self._step(other) is None and self.graph.operands[other].number
        if step.operator in ("multiply", "divide") and number not in (None, False):
            self.scale *= number if step.operator == "multiply" else 1.0 / number
            return one
        # A mask is added to the scores as they are scaled: a scale met behind it would scale it.
        if step.operator != "add" or self.mask is not None or self.scale != 1.0:
            return None
        self.mask = other
        return one

    def _source(self, number: int) -> tuple[int, list[int]]:
        """The operand behind a transpose, and the order of its axes."""
        step = self._step(number)
        if step is None:
            return number, [0, 1, 2, 3]
        return step.operands[0], [int(axis) for axis in axes_of(step)]

    def _repeats(self, *parts: tuple[int, Sequence[int]]) -> bool:
        turned = [[self.graph.value(n).shape[axis] for axis in axes] for n, axes in parts]
        return len({tuple(shape[:2]) for shape in turned}) != 1
