"""From a functional graph and its arguments to a module whose weights are constants."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hybridc.compiler.dynamo import torch_attention, torch_device
from hybridc.compiler.dynamo.torch_sources import (
    Result,
    Source,
    is_unread,
    is_write,
    require_usable,
    sources_of,
)
from hybridc.compiler.errors import ModelError


@dataclass(frozen=True)
class Frozen:
    """A graph whose inputs are tensors that it reads, and whose outputs are tensors it computes.

    Its own tensors are on the CPU, where it is read; those of calls are on `device`.
    Complex numbers come and go as pairs of real ones.

    `inputs` are the places of its inputs among the region's arguments, of which those at `twofold`
    are complex, and `results` say how torch has its outputs.  `outputs` says for each of the
    region's outputs where it comes from: an output of the graph, an argument's place, or a
    constant; `writes` says the same of arguments, by their places, that are written to in the end.
    `constants` are the addresses and versions of arguments that are none, whose memory is `kept`.
    """

    module: Any
    device: Any
    inputs: tuple[int, ...]
    twofold: frozenset[int]
    results: tuple[Result, ...]
    outputs: tuple[Source, ...]
    writes: tuple[tuple[int, Source], ...]
    constants: dict[int, tuple[int, int]] = field(repr=False)
    kept: tuple[Any, ...] = field(repr=False)

    def changed(self, args: Sequence[Any]) -> set[int]:
        """Addresses of the constants that are no longer what they were."""
        # There may be hundreds, at each call: no more is compared than tells.
        return {
            start
            for place, (start, version) in self.constants.items()
            if (given := args[place]).data_ptr() != start or given._version != version
        }


def freeze(graph: Any, args: Sequence[Any], weights: set[int]) -> Frozen:
    """Make arguments at the addresses `weights` constants, and leave out what is not computed.

    Raises ModelError for a graph that is not supported.
    """
    import torch

    places = {node: i for i, node in enumerate(graph.graph.find_nodes(op="placeholder"))}
    outputs, sources, writes = sources_of(graph, places)
    made = [node.meta["val"] for node in outputs]
    device = torch_device.common(_read(graph, places, args), made)
    taken = _Taken(torch.fx.Graph(), torch.nn.Module())
    frozen, values = taken.graph, taken.values
    written = {place for place, _ in writes}
    for node, place in places.items():
        value = args[place]
        if not isinstance(value, torch.Tensor) or is_unread(node):
            continue
        require_usable(value)
        constant = value.data_ptr() in weights and place not in written
        (taken.constant if constant else taken.input)(node, place, value)
    _copy_operators(graph, taken.root, frozen, values)
    results = tuple(Result.of(value) for value in made)
    frozen.output(
        tuple(
            frozen.call_function(pairs, (values[node],)) if result.is_complex else values[node]
            for node, result in zip(outputs, results, strict=True)
        )
    )
    frozen.eliminate_dead_code()
    for node in frozen.nodes:
        node.meta.clear()  # what the exporter would take for its own
    return Frozen(
        module=torch.fx.GraphModule(taken.root, frozen),
        device=device,
        inputs=tuple(taken.fed),
        twofold=frozenset(place for place in taken.fed if args[place].is_complex()),
        results=results,
        outputs=sources,
        writes=writes,
        constants=taken.constants,
        kept=tuple(taken.kept),
    )


@dataclass
class _Taken:
    """A graph, and what it takes: `values` by the nodes of the one that it is made of."""

    graph: Any
    root: Any
    values: dict[Any, Any] = field(default_factory=dict[Any, Any])
    fed: list[int] = field(default_factory=list[int])
    constants: dict[int, tuple[int, int]] = field(default_factory=dict[int, tuple[int, int]])
    kept: list[Any] = field(default_factory=list[Any])

    def constant(self, node: Any, place: int, value: Any) -> None:
        """Take an argument as it is now."""
        name = f"weight_{len(self.constants)}"
        self.root.register_buffer(name, torch_device.on_host(ordinary(value)))
        self.values[node] = self.graph.get_attr(name)
        self.constants[place] = value.data_ptr(), value._version
        self.kept.append(value.detach())  # whose memory stays, so that no other gets its address

    def input(self, node: Any, place: int, value: Any) -> None:
        """Take an argument at each call."""
        import torch

        given = self.graph.placeholder(f"x{len(self.fed)}")
        self.fed.append(place)
        is_complex = value.is_complex()
        turned = self.graph.call_function(torch.view_as_complex, (given,)) if is_complex else given
        self.values[node] = turned


def pairs(tensor: Any) -> Any:
    """The tensor; of complex numbers their real and imaginary parts, in a last axis."""
    import torch

    return torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor


def _read(graph: Any, places: dict[Any, int], args: Sequence[Any]) -> list[Any]:
    """The tensors that the graph computes with."""
    import torch

    given = [args[i] for node, i in places.items() if not is_unread(node)]
    return [each for each in given if isinstance(each, torch.Tensor)]


def _copy_operators(graph: Any, root: Any, frozen: Any, values: dict[Any, Any]) -> None:
    import torch
    from torch.fx.node import map_aggregate

    for node in graph.graph.nodes:
        if node.op == "get_attr":
            setattr(root, node.target, torch_device.on_host(getattr(graph, node.target)))
            values[node] = frozen.node_copy(node)
        elif is_write(node):
            values[node] = values.get(node.args[1])  # what is read of it, if anything
        elif node.op == "call_function":
            function = torch_attention.portable(node)
            if function is None:
                require_deterministic(node)
            require_free_of_effects(node)
            copied = values[node] = frozen.node_copy(node, values.__getitem__)
            # Arguments come resolved, so that a conjugate may be pending where there was none.
            shown = pairs if node.target is torch.ops.aten.view_as_real.default else None
            copied.target = function or shown or copied.target
            copied.args = map_aggregate(copied.args, torch_device.on_host)
            copied.kwargs = map_aggregate(copied.kwargs, torch_device.on_host)


def require_free_of_effects(node: Any) -> None:
    """Raise ModelError for what has to happen in order, such as a check of the data."""
    import torch

    if node.target is torch.ops.higher_order.with_effects:
        raise ModelError(f"operator '{node.args[1]}' has effects")


def require_deterministic(node: Any) -> None:
    """Raise ModelError for an operator that draws random numbers."""
    import torch

    if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
        raise ModelError(f"operator {str(node.target)!r} draws random numbers")


def ordinary(tensor: Any) -> Any:
    """The tensor as plain memory, without gradient and pending negation."""
    return tensor.detach().resolve_conj().resolve_neg()
