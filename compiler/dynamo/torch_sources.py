"""Where the outputs of a functional graph come from, and what it writes to its arguments."""

import operator
from collections import Counter
from dataclasses import dataclass
from typing import Any

from hybridc.compiler.errors import ModelError

# Views whose elements are others than those in memory.
_NEGATING = ("aten::_conj", "aten::_neg_view")


@dataclass(frozen=True)
class Result:
    """How torch lays out what the graph computes, and whether that is complex.

    It may lie row by row (`is_contiguous`), but for steps along axes of one element.
    """

    strides: tuple[int, ...]
    is_contiguous: bool
    is_turned: bool
    is_complex: bool

    @classmethod
    def of(cls, value: Any) -> "Result":
        """That of a tensor."""
        import torch

        strides = tuple(map(int, value.stride()))
        usual = torch.empty([int(size) for size in value.shape], device="meta").stride()
        turned = value.numel() > 1 and strides != usual
        return cls(strides, bool(value.is_contiguous()), turned, value.is_complex())


@dataclass(frozen=True)
class Computed:
    """An output that the compiled graph computes, at a place among its own; or a view of that."""

    place: int
    view: "View | None" = None


@dataclass(frozen=True)
class View:
    """Which elements of a result an output shows, as `torch.as_strided` takes them."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int


@dataclass(frozen=True)
class Argument:
    """An output that is one of the arguments."""

    place: int


@dataclass(frozen=True)
class Plain:
    """An output that is the same at each call: None, a number, a constant tensor."""

    value: Any


Source = Computed | Argument | Plain
Writes = tuple[tuple[int, Source], ...]


def sources_of(graph: Any, places: dict[Any, int]) -> tuple[list[Any], tuple[Source, ...], Writes]:
    """The nodes to compute, each once, and for each output and write where it comes from.

    Raises ModelError for a graph that is not supported.
    """
    nodes = result_of(graph).args[0]
    shown = Counter(_base(node) for node in {n for n in nodes if _is_call(n)})
    computed: list[Any] = []

    def source(node: Any, base: Any) -> Source:
        node = node.args[0] if is_write(node) else node
        if node in places:
            return Argument(places[node])
        if getattr(node, "op", None) == "get_attr":
            return Plain(getattr(graph, node.target))
        if not _is_call(node):
            return Plain(node)
        require_usable(base.meta["val"])
        if base not in computed:
            computed.append(base)
        return Computed(computed.index(base), _view(node, base))

    # Outputs of which one shows the memory of another do so in eager execution.
    bases = [base if shown[base := _base(node)] > 1 else node for node in nodes]
    outputs = tuple(source(node, base) for node, base in zip(nodes, bases, strict=True))
    written = [(places[node.args[0]], node.args[1]) for node in _writes(graph, places)]
    return computed, outputs, tuple((place, source(value, value)) for place, value in written)


def _writes(graph: Any, places: dict[Any, int]) -> list[Any]:
    """The nodes that write to arguments, which nothing behind them reads but by their results."""
    found: list[Any] = []
    written: set[Any] = set()
    for node in graph.graph.nodes:
        read = node.args[1:2] if is_write(node) else node.all_input_nodes
        if node.op == "call_function" and written.intersection(read):
            raise ModelError("an argument is read again once it was written to")
        if is_write(node):
            if node.args[0] not in places:
                raise ModelError("a tensor is written to that is no argument")
            found.append(node)
            written.add(node.args[0])
    return found


def is_write(node: Any) -> bool:
    """Whether a node writes to an argument."""
    import torch

    return getattr(node, "target", None) is torch.ops.aten.copy_.default


def is_unread(node: Any) -> bool:
    """Whether an argument is only returned and written to."""
    return all(
        user.op == "output" or (is_write(user) and user.args[1] is not node) for user in node.users
    )


def result_of(graph: Any) -> Any:
    """The node that says what a graph returns."""
    return next(node for node in graph.graph.nodes if node.op == "output")


def _is_call(node: Any) -> bool:
    return getattr(node, "op", None) == "call_function"


def _base(node: Any) -> Any:
    """The computed node whose memory a node shows; itself if that is no other's."""
    while _is_call(node) and (source := viewed(node)) is not None and _is_call(source):
        if source.meta["val"].dtype != node.meta["val"].dtype:
            break
        node = source
    return node


def viewed(node: Any) -> Any:
    """What a node is a view of, or None."""
    maker = node.args[0] if node.target is operator.getitem else node  # one of several views
    schema = getattr(maker.target, "_schema", None)
    if schema is None or not schema.arguments or schema.name in _NEGATING:
        return None
    alias = schema.arguments[0].alias_info
    return maker.args[0] if alias is not None and not alias.is_write else None


def _view(node: Any, source: Any) -> View | None:
    if node is source:
        return None
    value, base = node.meta["val"], source.meta["val"]
    sizes, strides = (tuple(map(int, numbers)) for numbers in (value.shape, value.stride()))
    return View(sizes, strides, int(value.storage_offset() - base.storage_offset()))


def require_usable(value: Any) -> None:
    """Raise ModelError for a tensor that compiled code neither takes nor gives."""
    import torch

    if value.layout != torch.strided or value.is_quantized:
        raise ModelError(f"a tensor is {value.layout}; only dense ones are taken")
    if value.dtype == torch.complex32:
        raise ModelError(f"a tensor is of {value.dtype}")
