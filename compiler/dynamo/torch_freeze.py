"""From a functional graph and its arguments to a module whose weights are constants."""

import operator
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hybridc.compiler.dynamo import torch_attention, torch_device
from hybridc.compiler.errors import ModelError

# Views whose elements are others than those in memory.
_NEGATING = ("aten::_conj", "aten::_neg_view")


@dataclass(frozen=True)
class Frozen:
    """A graph whose inputs are tensors that it reads, and whose outputs are tensors it computes.

    Its own tensors are on the CPU, where it is read; those of calls are on `device`.
    Complex numbers come and go as pairs of real ones.

    `inputs` are the places of its inputs among the region's arguments, and `results` say how torch
    has its outputs.  `outputs` says for each of the region's outputs where it comes from: an output
    of the graph, an argument's place, or a constant.
    """

    module: Any
    device: Any
    inputs: tuple[int, ...]
    results: tuple["Result", ...]
    outputs: tuple["Computed | Argument | Plain", ...]
    constants: dict[int, tuple[Any, int]] = field(repr=False)

    def changed(self, args: Sequence[Any]) -> set[int]:
        """Addresses of the constants that are no longer what they were."""
        return {
            kept.data_ptr()
            for place, (kept, version) in self.constants.items()
            if args[place].data_ptr() != kept.data_ptr() or args[place]._version != version
        }


@dataclass(frozen=True)
class Result:
    """How torch lays out what the graph computes, and whether that is complex."""

    strides: tuple[int, ...]
    is_complex: bool


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


def freeze(graph: Any, args: Sequence[Any], weights: set[int]) -> Frozen:
    """Make arguments at the addresses `weights` constants, and leave out what is not computed.

    Raises ModelError for a graph that is not supported.
    """
    import torch

    frozen, values = torch.fx.Graph(), dict[Any, Any]()
    root, fed = torch.nn.Module(), list[int]()
    constants: dict[int, tuple[Any, int]] = {}
    places = {node: i for i, node in enumerate(graph.graph.find_nodes(op="placeholder"))}
    outputs, sources = _sources(graph, places)
    made = [node.meta["val"] for node in outputs]
    device = torch_device.common(_read(graph, places, args), made)
    for node, place in places.items():
        value = args[place]
        if not isinstance(value, torch.Tensor) or set(node.users) <= {_result(graph)}:
            continue
        require_usable(value)
        if value.data_ptr() in weights:
            name = f"weight_{len(constants)}"
            root.register_buffer(name, torch_device.on_host(ordinary(value)))
            values[node] = frozen.get_attr(name)
            constants[place] = value, value._version
        else:
            given = values[node] = frozen.placeholder(f"x{len(fed)}")
            if value.is_complex():
                values[node] = frozen.call_function(torch.view_as_complex, (given,))
            fed.append(place)
    _copy_operators(graph, root, frozen, values)
    results = tuple(_result_of(value) for value in made)
    frozen.output(
        tuple(
            frozen.call_function(pairs, (values[node],)) if result.is_complex else values[node]
            for node, result in zip(outputs, results, strict=True)
        )
    )
    frozen.eliminate_dead_code()
    for node in frozen.nodes:
        node.meta.clear()  # what the exporter would take for its own
    module = torch.fx.GraphModule(root, frozen)
    return Frozen(module, device, tuple(fed), results, sources, constants)


def _result_of(value: Any) -> Result:
    return Result(tuple(map(int, value.stride())), value.is_complex())


def pairs(tensor: Any) -> Any:
    """The tensor; of complex numbers their real and imaginary parts, in a last axis."""
    import torch

    return torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor


def _read(graph: Any, places: dict[Any, int], args: Sequence[Any]) -> list[Any]:
    """The tensors that the graph computes with."""
    import torch

    given = [args[i] for node, i in places.items() if not set(node.users) <= {_result(graph)}]
    return [each for each in given if isinstance(each, torch.Tensor)]


def _copy_operators(graph: Any, root: Any, frozen: Any, values: dict[Any, Any]) -> None:
    from torch.fx.node import map_aggregate

    for node in graph.graph.nodes:
        if node.op == "get_attr":
            setattr(root, node.target, torch_device.on_host(getattr(graph, node.target)))
            values[node] = frozen.node_copy(node)
        elif node.op == "call_function":
            function = torch_attention.portable(node)
            if function is None:
                require_deterministic(node)
            require_free_of_effects(node)
            copied = values[node] = frozen.node_copy(node, values.__getitem__)
            copied.target = function or copied.target
            copied.args = map_aggregate(copied.args, torch_device.on_host)
            copied.kwargs = map_aggregate(copied.kwargs, torch_device.on_host)


def require_free_of_effects(node: Any) -> None:
    """Raise ModelError for what has to happen in order, such as a check of the data."""
    import torch

    if node.target is torch.ops.higher_order.with_effects:
        raise ModelError(f"operator '{node.args[1]}' has effects")


def _result(graph: Any) -> Any:
    return next(node for node in graph.graph.nodes if node.op == "output")


def _sources(
    graph: Any, places: dict[Any, int]
) -> tuple[list[Any], tuple[Computed | Argument | Plain, ...]]:
    """The nodes to compute, each once, and for each output where it comes from."""
    nodes = _result(graph).args[0]
    shown = Counter(_base(node) for node in {n for n in nodes if _is_call(n)})
    computed: list[Any] = []
    sources: list[Computed | Argument | Plain] = []
    for node in nodes:
        if node in places:
            sources.append(Argument(places[node]))
        elif getattr(node, "op", None) == "get_attr":
            sources.append(Plain(getattr(graph, node.target)))
        elif _is_call(node):
            # Outputs of which one shows the memory of another do so in eager execution.
            source = base if shown[base := _base(node)] > 1 else node
            require_usable(source.meta["val"])
            if source not in computed:
                computed.append(source)
            sources.append(Computed(computed.index(source), _view(node, source)))
        else:
            sources.append(Plain(node))
    return computed, tuple(sources)


def _is_call(node: Any) -> bool:
    return getattr(node, "op", None) == "call_function"


def _base(node: Any) -> Any:
    """The computed node whose memory a node shows; itself if that is no other's."""
    while (source := _viewed(node)) is not None and _is_call(source):
        if source.meta["val"].dtype != node.meta["val"].dtype:
            break
        node = source
    return node


def _viewed(node: Any) -> Any:
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


def require_deterministic(node: Any) -> None:
    """Raise ModelError for an operator that draws random numbers."""
    import torch

    if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
        raise ModelError(f"operator {str(node.target)!r} draws random numbers")


def ordinary(tensor: Any) -> Any:
    """The tensor as plain memory, without gradient and pending negation."""
    return tensor.detach().resolve_conj().resolve_neg()
