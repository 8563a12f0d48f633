"""Subgraphs on torch's operators: tensors cross by DLPack, without copies.

A `Head` is what a library computes at one go, the first steps of a subgraph; torch's elementwise
operators compute those behind it.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from hybridc.compiler.backends import _patterns
from hybridc.compiler.interfaces import NotApplicable
from hybridc.compiler.offload.match import EPILOGUE
from hybridc.compiler.offload.subgraph import Step, Subgraph

Tensor = Any  # torch.Tensor
_FLOATS = ("float16", "bfloat16", "float32")
_AS_IT_IS = ("ieee", "none")  # precisions in which torch multiplies float32 as it is
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
        self._wide = any(value.dtype == "float32" for value in (*graph.operands, *graph.steps))

    def __call__(self, *tensors: Any) -> None:
        """Compute into the last tensor, on this session's threads."""
        torch, before = self._torch, self._torch.get_num_threads()
        if before != self._threads:
            torch.set_num_threads(self._threads)
        try:
            whole = unrounded(_is_host(tensors[-1])) if self._wide else nullcontext()
            with torch.inference_mode(), _stream(torch, tensors[-1]), whole:
                self._compute(tensors)
        finally:
            if before != self._threads:  # whoever else uses torch here keeps theirs
                torch.set_num_threads(before)

    def _compute(self, tensors: Sequence[Any]) -> None:
        view, operands = self._torch.from_dlpack, self._graph.operands
        if not self._constants:
            described = zip(tensors, operands, strict=False)
            self._constants = [view(t) if each.constant else None for t, each in described]
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
    if _is_host(result) or torch.cuda.is_current_stream_capturing():
        return nullcontext()
    stream: AbstractContextManager[Any] = torch.cuda.stream(
        torch.cuda.default_stream(result.device.index)
    )
    return stream


def _is_host(tensor: Any) -> bool:
    return str(tensor.device).startswith("cpu")


@contextmanager
def unrounded(on_host: bool) -> Generator[None]:
    """Have torch multiply float32 as it is.

    Its convolutions on a GPU round it to TF32 unless told otherwise, and a program that wants that
    of its products, or bfloat16 on a CPU (`set_float32_matmul_precision`), wants it not of ours.
    """
    from torch import backends

    host: Any = backends.mkldnn.conv, backends.mkldnn.matmul
    gpu: Any = backends.cudnn.conv, backends.cuda.matmul
    rounded = {
        product: how
        for product in (host if on_host else gpu)
        if (how := product.fp32_precision) not in _AS_IT_IS
    }
    for product in rounded:
        product.fp32_precision = "ieee"
    try:
        yield
    finally:
        for product, how in rounded.items():
            product.fp32_precision = how


def _elementwise(torch: Any, step: Step) -> Callable[..., Tensor]:
    functional = torch.nn.functional
    known: Mapping[str, Callable[..., Tensor]] = {
        "nn.relu": torch.relu,
        "nn.gelu": functional.gelu,
        "nn.silu": functional.silu,
        "permute_dims": lambda x: x.permute(_patterns.axes_of(step)),
    }
    return known.get(step.operator) or getattr(torch, step.operator)


# What `TorchCall` computes behind a head.
ELEMENTWISE = frozenset((*EPILOGUE, "permute_dims"))


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


def attention_head(graph: Subgraph) -> Head | NotApplicable:
    """Torch's attention for all steps of a subgraph, if that is what they are."""
    found = _patterns.attention(graph)
    if isinstance(found, NotApplicable):
        return found

    def prepare(_: Sequence[Tensor | None]) -> Any:
        from torch.nn.functional import scaled_dot_product_attention

        return scaled_dot_product_attention

    def run(values: Sequence[Tensor], attend: Any, result: Tensor) -> Tensor:
        pairs = zip(found.operands, found.axes, strict=True)
        query, key, value = (values[number].permute(axes) for number, axes in pairs)
        mask = None if found.mask is None else values[found.mask]
        attended = attend(query, key, value, attn_mask=mask, scale=found.scale)
        return attended if found.last is None else attended.permute(found.last)

    return Head(len(graph.steps), prepare, run)


def matmul_head(graph: Subgraph) -> Head:
    """Torch's product, right into the result's memory where nothing follows."""
    left, right = graph.steps[0].operands

    def prepare(_: Sequence[Tensor | None]) -> Any:
        import torch

        return torch.matmul

    def run(values: Sequence[Tensor], matmul: Any, result: Tensor) -> Tensor:
        if len(graph.steps) == 1 and result.dtype == values[left].dtype:
            return matmul(values[left], values[right], out=result)
        return matmul(values[left], values[right])

    return Head(1, prepare, run)


def bias_row(
    constants: Sequence[Tensor | None], number: int | None, graph: Subgraph
) -> Tensor | None:
    """The constant of a number as one row; None if there is no such constant.

    It has the type of what is multiplied: torch's products of 16 bits, which are added up in
    float32, take their bias in 16 bits and are rounded to these.
    """
    held = None if number is None else constants[number]
    if held is None:
        return None
    import torch

    dtype = graph.operands[graph.steps[0].operands[0]].dtype
    floats = dtype in _FLOATS and held.is_floating_point()
    return held.reshape(-1).to(getattr(torch, dtype) if floats else held.dtype)
