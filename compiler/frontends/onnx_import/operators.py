"""Which ONNX operators can be imported, and how the others are written with those that can."""

from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter

from hybridc.compiler.errors import ModelError, hint
from hybridc.compiler.frontends.onnx_graph import functions
from hybridc.compiler.frontends.onnx_graph.misreadings import better_expanded, misreading
from hybridc.compiler.frontends.onnx_graph.model_file import Proto
from hybridc.compiler.frontends.onnx_graph.writer import domain_of, opset_of

_STANDARD = ("", "ai.onnx")
# ONNX Runtime takes a number for a list of one here, or the other way.
_LOOSE = {"Range", "Squeeze", "Unsqueeze"}
# They draw numbers, at each call others.
RANDOM = frozenset(
    {
        "Bernoulli",
        "Multinomial",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
    }
)
# Functions may be written with functions; ONNX's own go three deep.
_EXPANSIONS = 8
# Operators that a model's own functions may become: each may call another twice, and so on.
_MOST_OPERATORS = 1_000_000


def supported(node: Proto) -> bool:
    """Whether we or TVM's importer have a converter for this node's operator and domain."""
    from hybridc.compiler.frontends.onnx_import.importer import converters

    if node.domain in _STANDARD:
        if node.op_type in converters():
            return True
        return node.op_type in _known() and not better_expanded(node)
    return node.domain == "com.microsoft" and node.op_type in _known() & functions.MICROSOFT


@cache
def _known() -> frozenset[str]:
    """The operators of TVM's importer."""
    from tvm.relax.frontend.onnx import onnx_frontend

    table = onnx_frontend._get_convert_map()  # pyright: ignore[reportPrivateUsage]
    return frozenset({*table, "If"})


def unsupported(proto: Proto) -> list[Proto]:
    """The nodes, also within subgraphs, that cannot be imported even when expanded."""
    opsets = opsets_of(proto)
    local = {(function.domain, function.name) for function in proto.functions}
    return [
        node
        for node in walk(proto.graph)
        if not supported(node)
        and (node.domain, node.op_type) not in local
        and not functions.has_body(node, opsets)
    ]


def require_supported(proto: Proto) -> None:
    """Raise ModelError that names the first unsupported operator, its node, and the others.

    What the importer is known to compute wrongly counts as not supported.
    """
    nodes = list(walk(proto.graph))
    _require_known([node for node in nodes if not supported(node)])
    for node in nodes:
        if node.domain in _STANDARD and (wrong := misreading(node)):
            raise ModelError(f"{_operator(node)} is not supported with {wrong}")


def _require_known(missing: list[Proto]) -> None:
    if not missing:
        return
    counts = Counter(node.op_type for node in missing)
    del counts[missing[0].op_type]
    others = ", ".join(f"{name} x{count}" for name, count in counts.items())
    tail = f"; {len(counts)} others: {others}" if counts else ""
    raise ModelError(f"{_operator(missing[0])} is not supported{misnamed(missing[0])}{tail}")


def misnamed(node: Proto) -> str:
    """That ONNX has no operator of a node's name, and the nearest; "" where it has, or may."""
    import onnx

    if node.domain not in _STANDARD or onnx.defs.has(node.op_type):
        return ""
    known = {schema.name for schema in onnx.defs.get_all_schemas() if schema.domain == ""}
    return f": ONNX has none of that name; {hint(node.op_type, known)}"


def expand_all(proto: Proto, again: Callable[[Proto], Proto]) -> Proto:
    """Write the model's own functions, and operators that need it, with other operators.

    Those are operators that the importer lacks or misreads, and that ONNX defines by others.
    Goes on until nothing is left to expand, running `again` on the graph after each round.  What
    cannot be expanded stays.
    """
    for _ in range(_EXPANSIONS):
        wanted = _expandable(proto)
        if not proto.functions and not wanted:
            break
        proto = again(_expand(proto, wanted))
    return proto


def _expand(proto: Proto, wanted: set[functions.Operator]) -> Proto:
    import onnx.inliner

    if proto.functions:
        _require_few(proto)
        return onnx.inliner.inline_local_functions(functions.with_defaults(proto))
    return functions.inlined(proto, wanted, opsets_of(proto))


def _require_few(proto: Proto) -> None:
    """Raise ModelError where a model's functions call themselves, or write out to too much."""
    bodies = {_called(function): list(walk(function)) for function in proto.functions}
    calls = {
        name: {_called(node) for node in nodes} & set(bodies) for name, nodes in bodies.items()
    }
    sizes: dict[tuple[str, str, str], int] = {}
    try:
        for name in TopologicalSorter(calls).static_order():
            sizes[name] = sum(sizes.get(_called(node), 1) for node in bodies[name])
    except CycleError:
        raise ModelError("the model's functions call themselves") from None
    total = sum(sizes.get(_called(node), 1) for node in walk(proto.graph))
    if total > _MOST_OPERATORS:
        raise ModelError(
            f"the model's functions stand for {total} operators; the most is {_MOST_OPERATORS}"
        )


def _called(item: Proto) -> tuple[str, str, str]:
    """What a function is known by, or what a node calls."""
    name = item.op_type if hasattr(item, "op_type") else item.name
    return str(item.domain), str(name), str(item.overload)


def _expandable(proto: Proto) -> set[functions.Operator]:
    opsets = opsets_of(proto)
    return {
        functions.called(node)
        for node in walk(proto.graph)
        if not supported(node) and functions.has_body(node, opsets)
    }


def _operator(node: Proto) -> str:
    return f"operator {node.op_type!r} ({place(node)})"


def require_loose(node: Proto, error: Exception) -> None:
    """Raise ModelError for a node that ONNX's inference refuses, unless ONNX Runtime takes it."""
    if node.op_type not in _LOOSE:
        said = str(error).strip().splitlines()[-1].rpartition("Error] ")[2]
        raise ModelError(f"{_operator(node)} is not valid: {said[:300]}")


def draws(proto: Proto) -> bool:
    """Whether a model's outputs depend on a generator of random numbers."""
    return any(
        node.op_type in RANDOM or (node.op_type == "Dropout" and any(node.input[2:]))
        for node in walk(proto.graph)
    )


def opsets_of(proto: Proto) -> functions.Opsets:
    """The version of each domain's operators that a model uses."""
    found = {domain_of(opset): int(opset.version) for opset in proto.opset_import}
    return {**found, "": opset_of(proto)}


def place(node: Proto) -> str:
    """How a message points at a node: by its name, or by what it computes."""
    return f"node {node.name!r}" if node.name else f"node computing {node.output[0]!r}"


def walk(graph: Proto) -> Iterator[Proto]:
    """Every node of a graph, each before those of its subgraphs."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in [attribute.g, *attribute.graphs]:
                yield from walk(inner)
