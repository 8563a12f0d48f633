"""Subgraphs on torch's operators: tensors cross by DLPack, without copies.

A `Head` is what a library computes at one go, the first steps of a subgraph; torch's elementwise
operators compute those behind it.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from hybridc.compiler.interfaces import NotApplicable
from hybridc.compiler.offload.subgraph import Step, Subgraph

Tensor = Any  # torch.Tensor
# Makes of the tensors of constants (None of inputs) what every call uses.
Prepare = Callable[[Sequence[Tensor | None]], Any]
# Computes from all operands, what was prepared, and the result's memory.
Run = Callable[[Sequence[Tensor], Any, Tensor], Tensor]


@dataclass(frozen=True)
class Head:
    """The first `steps` of a subgraph at one go; the run may give the result's memory itself."""

    steps: int
    prepare: Prepare
    run: Run


class TorchCall:
    """One subgraph: called with the operands and the tensor of the result."""

    def __init__(self, graph: Subgraph, head: Head, threads: int) -> None:
        import torch

        self._torch, self._graph, self._head, self._threads = torch, graph, head, threads
        self._constants: list[Tensor | None] = []
        self._prepared: Any = None
        self._rest = [_elementwise(torch, step) for step in graph.steps[head.steps :]]

    def __call__(self, *tensors: Any) -> None:
        """Compute into the last tensor, on this session's threads."""
        torch, before = self._torch, self._torch.get_num_threads()
        if before != self._threads:
            torch.set_num_threads(self._threads)
        try:
            with torch.inference_mode(), _stream(torch, tensors[-1]):
                self._compute(tensors)
        finally:
            if before != self._threads:  # whoever else uses torch here keeps theirs
                torch.set_num_threads(before)

    def _compute(self, tensors: Sequence[Any]) -> None:
        view, operands = self._torch.from_dlpack, self._graph.operands
        if not self._constants:
            given = zip(tensors, operands, strict=False)
            self._constants = [view(t) if each.constant else None for t, each in given]
            self._prepared = self._head.prepare(self._constants)
        pairs = zip(self._constants, tensors, strict=False)
        values: list[Tensor] = [view(t) if held is None else held for held, t in pairs]
        result, count = view(tensors[-1]), self._head.steps
        # What heads compute inside is nobody's operand, but has a number.
        found = self._head.run(values, self._prepared, result)
        values += [found] * count
        for step, compute in zip(self._graph.steps[count:], self._rest, strict=True):
            values.append(compute(*(values[number] for number in step.operands)))
        if values[-1].data_ptr() != result.data_ptr():
            result.copy_(values[-1])


def _stream(torch: Any, result: Any) -> AbstractContextManager[Any]:
    """On a GPU, the stream that a session's own waits for; within a recording, that of it."""
    device = result.device
    if str(device).startswith("cpu") or torch.cuda.is_current_stream_capturing():
        return nullcontext()
    made: AbstractContextManager[Any] = torch.cuda.stream(torch.cuda.default_stream(device.index))
    return made


def _elementwise(torch: Any, step: Step) -> Callable[..., Tensor]:
    functional = torch.nn.functional
    known: Mapping[str, Callable[..., Tensor]] = {
        "nn.relu": torch.relu,
        "nn.gelu": functional.gelu,
        "nn.silu": functional.silu,
        "permute_dims": lambda x: x.permute(axes_of(step)),
    }
    return known.get(step.operator) or getattr(torch, step.operator)


# What `TorchCall` computes behind a head.
ELEMENTWISE = frozenset(
    (
        *("add", "subtract", "multiply", "divide", "maximum", "minimum"),
        *("nn.relu", "nn.gelu", "nn.silu", "permute_dims"),
    )
)


def unsupported(graph: Subgraph, steps: int, dtypes: Sequence[str]) -> NotApplicable | None:
    """Why a subgraph cannot be computed by a head of so many steps; nothing where it can."""
    others = [step.operator for step in graph.steps[steps:] if step.operator not in ELEMENTWISE]
    if others:
        return NotApplicable(f"{others[0]} follows")
    types = {value.dtype for value in (*graph.operands, *graph.steps)}
    if odd := sorted(types - set(dtypes)):
        return NotApplicable(f"it computes in {odd[0]}, not in {' or '.join(dtypes)}")
    if any(extent == 0 for value in (*graph.operands, *graph.steps) for extent in value.shape):
        return NotApplicable("a tensor has no elements")
    return None


@dataclass(frozen=True)
class Convolution:
    """A convolution of images, channels last, as torch's functions take it.

    `bias`, `other` and `relu` are the steps that a library computes with it: numbers of the
    operands added for each channel and for each element, and whether zero is the least.
    """

    steps: int
    options: tuple[Any, ...]  # padding, strides, dilation, groups
    bias: int | None = None
    other: int | None = None
    relu: bool = False


def convolution(graph: Subgraph) -> Convolution | NotApplicable:
    """The convolution that a subgraph begins with, and what it can be computed with."""
    first = graph.steps[0]
    if first.operator != "nn.conv2d":
        return NotApplicable("it is no convolution")
    told = first.attributes
    layouts = told["data_layout"], told["kernel_layout"], told["out_layout"] or "NHWC"
    if layouts != ("NHWC", "OHWI", "NHWC"):
        return NotApplicable("its layout is not channels last")
    top, left, bottom, right = told["padding"]
    if (top, left) != (bottom, right):
        return NotApplicable("its padding is not the same on both sides")
    options = ((top, left), tuple(told["strides"]), tuple(told["dilation"]), int(told["groups"]))
    follow = following(graph)
    return Convolution(follow.steps, options, follow.bias, follow.other, follow.relu)


@dataclass(frozen=True)
class Following:
    """What may be computed with a product: see `Convolution`."""

    steps: int
    bias: int | None
    other: int | None
    relu: bool


def following(graph: Subgraph) -> Following:
    """Bias, another tensor and ReLU behind the first step, in this order, if they are there."""
    place, bias, other = 1, None, None
    found = _added(graph, place)
    if found is not None and _is_bias(graph, found):
        place, bias = place + 1, found
        found = _added(graph, place)
    if found is not None and graph.value(found).shape == graph.steps[0].shape:
        place, other = place + 1, found
    relu = place < len(graph.steps) and graph.steps[place].operator == "nn.relu"
    return Following(place + relu, bias, other, relu)


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
    `last` are those of the result, None where it stays.
    """

    operands: tuple[int, int, int]
    axes: tuple[Sequence[int], Sequence[int], Sequence[int]]
    scale: float
    mask: int | None
    last: Sequence[int] | None


def attention(graph: Subgraph) -> Attention | NotApplicable:
    """The attention that a whole subgraph is, if torch has words for it."""
    reader = _Attention(graph)
    return reader.read()


class _Attention:
    def __init__(self, graph: Subgraph) -> None:
        self.graph, self.scale = graph, 1.0
        self.mask: int | None = None

    def read(self) -> Attention | NotApplicable:
        graph = self.graph
        if "nn.softmax" not in graph.operators:
            return NotApplicable("it is no attention")
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
            following = self._past(step)
            step = None if following is None else self._step(following)
        return step if step is not None and len(step.shape) == 4 else None

    def _past(self, step: Step) -> int | None:
        """What a scale or a mask is applied to; None where it is neither."""
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


def attention_head(found: Attention, steps: int) -> Head:
    """Torch's attention for all steps of a subgraph."""

    def prepare(_: Sequence[Tensor | None]) -> Any:
        from torch.nn.functional import scaled_dot_product_attention

        return scaled_dot_product_attention

    def run(values: Sequence[Tensor], attend: Any, result: Tensor) -> Tensor:
        pairs = zip(found.operands, found.axes, strict=True)
        query, key, value = (values[number].permute(axes) for number, axes in pairs)
        mask = None if found.mask is None else values[found.mask]
        made = attend(query, key, value, attn_mask=mask, scale=found.scale)
        return made if found.last is None else made.permute(found.last)

    return Head(steps, prepare, run)
