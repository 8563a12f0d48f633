"""ATen operators written out with simpler ones, by functions of ours and of torch's.

An operator that a road lacks is written with others that it has: ours, in the tables
`DECOMPOSITIONS` of the files in `aten/`, go before torch's own.
"""

import importlib
import pkgutil
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import cache
from types import MappingProxyType
from typing import Any

import torch

from hybridc.compiler.frontends import aten
from hybridc.compiler.frontends.torch_import import assertions

Overload = Any  # torch._ops.OpOverload
Table = Mapping[Overload, Callable[..., Any]]

# What torch's ONNX exporter writes wrongly: of norms in training it gives other statistics.
_MISWRITTEN = frozenset(
    {
        "_native_batch_norm_legit.default",
        "_native_batch_norm_legit.no_stats",
        "_native_batch_norm_legit_functional.default",
        "native_batch_norm.default",
    }
)


def for_onnx(exported: Any) -> Any:
    """The program with what torch's ONNX exporter lacks, or writes wrongly, written out.

    It is the program given where nothing has to be.
    """
    table = {**_all(), **_of_libraries(exported)}
    wanted: dict[Overload, Callable[..., Any]] = {}
    # What an operator is written with may have to be written out itself; what stays although it was
    # wanted once stays for good, and a round takes seconds.
    while new := {
        target: table[target]
        for target in _targets(exported)
        if target in table and target not in wanted and _is_for_us(target)
    }:
        wanted |= new
        with torch.no_grad():  # some operators refuse parameters that have gradients
            exported = exported.run_decompositions(wanted)
    return exported


def _is_for_us(target: Overload) -> bool:
    """Whether torch's exporter lacks an operator, or writes it wrongly or worse."""
    known = _exporter().is_registered(target)
    return not known or target in own() or target.__name__ in _MISWRITTEN


def for_relax(exported: Any, importable: Collection[str], converted: Collection[str]) -> Any:
    """The program in core ATen operators, and in those that are `converted` by us.

    Of the others, those that are not `importable` are written out.
    """
    table = {
        target: function
        for target, function in (*_all().items(), *_of_libraries(exported).items())
        if target in own() or target in _standard() or not _is_one_of(target, importable)
    }
    kept = {target for target in table if _is_one_of(target, converted)}
    wanted = {target: function for target, function in table.items() if target not in kept}
    for target in kept:
        if (takes := _taken_where().get(target.__name__)) is not None:
            wanted[target] = _where_not(takes, table[target])
    with torch.no_grad():
        return assertions.without(exported.run_decompositions(wanted))


@cache
def _taken_where() -> Mapping[str, Callable[..., bool]]:
    """When calls are converted, of operators of which not all are: the tables `CONVERTED_WHERE`."""
    found: dict[str, Callable[..., bool]] = {}
    for module in families():
        found.update(getattr(module, "CONVERTED_WHERE", {}))
    return MappingProxyType(found)


def _where_not(takes: Callable[..., bool], function: Callable[..., Any]) -> Callable[..., Any]:
    """A decomposition of the calls that no converter takes."""

    def written_out(*args: Any, **kwargs: Any) -> Any:
        return NotImplemented if takes(*args, **kwargs) else function(*args, **kwargs)

    return written_out


def _is_one_of(target: Overload, names: Collection[str]) -> bool:
    """Whether an operator of ATen has one of the names; primitives have names of ATen's as well."""
    return target.namespace != "prims" and target.__name__ in names


@cache
def own() -> Table:
    """Our decompositions by operator.

    Raises ValueError where two files have one operator.
    """
    found: dict[Overload, Callable[..., Any]] = {}
    for module in families():
        for name, function in getattr(module, "DECOMPOSITIONS", {}).items():
            packet, _, overload = name.partition(".")
            target = getattr(getattr(torch.ops.aten, packet), overload)
            if target in found:
                raise ValueError(f"{module.__name__} writes out again: {name}")
            found[target] = function
    return MappingProxyType(found)


def _of_libraries(exported: Any) -> Table:
    """Our decompositions of operators of a program that other libraries than torch define."""
    known: dict[str, Callable[..., Any]] = {}
    for module in families():
        known |= getattr(module, "DECOMPOSITIONS_OF_LIBRARIES", {})
    return {target: known[str(target)] for target in _targets(exported) if str(target) in known}


def is_of_known_library(target: Overload) -> bool:
    """Whether an operator that another library than torch defines can be imported."""
    named = any(
        str(target) in getattr(module, "DECOMPOSITIONS_OF_LIBRARIES", {}) for module in families()
    )
    return named or target in _all() or bool(_exporter().is_registered(target))


def families() -> Iterator[Any]:
    """The modules in `aten/`."""
    for module in pkgutil.iter_modules(aten.__path__, f"{aten.__name__}."):
        yield importlib.import_module(module.name)


@cache
def _all() -> Table:
    return MappingProxyType({**_references(), **_standard(), **_primitives(), **own()})


@cache
def _standard() -> Table:
    """Those to core ATen operators."""
    return MappingProxyType(dict(torch.export.default_decompositions().items()))


def _references() -> Table:
    """Torch's Python decompositions, but for those that are another name of the same operator."""
    return {
        target: function
        for target, function in torch._decomp.decomposition_table.items()
        if isinstance(target, torch._ops.OpOverload)  # pyright: ignore[reportPrivateUsage]
        and not hasattr(torch.ops.prims, target._schema.name.partition("::")[2])  # pyright: ignore[reportPrivateUsage]
    }


def _primitives() -> Table:
    """What torch's decompositions end in, as the ATen operators that it stands for."""
    import torch._prims as prims

    packets: list[Any] = [getattr(torch.ops.prims, name, None) for name in prims.__all__]
    found = {p.default: p.impl_aten for p in packets if hasattr(p, "impl_aten")}
    # Torch's own writes into an empty tensor.
    return {**found, torch.ops.prims.convert_element_type.default: _converted}


def _converted(tensor: Any, kind: Any) -> Any:
    return torch.ops.aten._to_copy(tensor, dtype=kind)


@cache
def _exporter() -> Any:
    """The converters of torch's ONNX exporter."""
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    return ONNXRegistry.from_torchlib()


def _targets(exported: Any) -> set[Overload]:
    """The operators of a program that may have to be written out."""
    nodes = [node for node in exported.graph.nodes if node.op == "call_function"]
    return {node.target for node in nodes if not _fine(node)}


def _fine(node: Any) -> bool:
    """Whether a node stays as it is: inert norms, averages without a divisor, powers of floats."""
    if node.target is torch.ops.aten.batch_norm.default:
        return not node.args[5]
    if node.target.__name__.startswith("pow."):
        return bool(node.meta["val"].is_floating_point())
    if node.target.__name__ in (f"avg_pool{rank}d.default" for rank in (1, 2, 3)):
        return len(node.args) < 7 and node.kwargs.get("divisor_override") is None
    return False
