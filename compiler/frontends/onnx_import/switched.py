"""One module of the graphs between which an input chooses: a function for each of its values.

`main` asks the input and calls one of them.  Each has the sizes, and the bounds of these, that its
own graph implies; results may have other shapes in the one than in the other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import lcm
from typing import Any

import tvm
from tvm import relax, tirx
from tvm.relax.expr_functor import PyExprMutator, mutator

from hybridc.compiler.dims import Dim, Shape, Size, checked
from hybridc.compiler.errors import ModelError
from hybridc.compiler.frontends.onnx_graph import open_axes, spans, switches, value_specs
from hybridc.compiler.frontends.onnx_graph.model_file import OnnxFile
from hybridc.compiler.frontends.onnx_import import (
    addressable,
    open_import,
    operators,
    preparation,
)
from hybridc.compiler.frontends.relax_outputs import output_specs, with_bounds
from hybridc.compiler.interfaces import IRModule
from hybridc.compiler.model import TensorSpec

PREFIX = "branch_"


@dataclass(frozen=True)
class Branch:
    """A graph by itself: its module, the inputs that it reads, and its open sizes."""

    module: IRModule
    inputs: tuple[TensorSpec, ...]
    dims: Mapping[str, Dim]
    notes: tuple[str, ...] = ()

    def told(self) -> str:
        """Its sizes, and why some are bounded."""
        sizes = (size for spec in self.inputs for size in spec.shape if isinstance(size, Dim))
        sums = {
            f"{dim} is {dim.sum_of_parts()}" for dim in sizes if dim.parts and "+" not in dim.name
        }
        listed = ", ".join(dim.describe() for dim in self.dims.values()) or "none"
        return "; ".join([f"sizes that stay open: {listed}", *sorted(sums), *self.notes])


def branch(
    file: OnnxFile,
    bound: Mapping[str, Shape],
    shapes: Mapping[str, Shape],
    switch: str,
    value: bool,
) -> Branch:
    """Import the graph that the switch chooses by a value, with the inputs that it reads alone.

    Raises ModelError as for a model of that graph.
    """
    file = switches.with_value(file, switch, bound[switch], value)
    known = {name: shape for name, shape in shapes.items() if name != switch}
    whole = preparation.prepare(file, open_axes.bind(file, known))
    file = switches.without_unread(file, whole.proto.graph)
    bound = open_axes.bind(file, switches.told(known, file))
    static = preparation.prepare(file, bound)
    addressable.require(static)
    operators.require_supported(static.proto)
    bound, sizes, module = open_import.imported_open(static, preparation.carried(file), bound)
    specs = [
        value_specs.input_spec(each, open_import.limited(bound[each.name], sizes.dims))
        for each in file.inputs()
    ]
    drawn = spans.with_spans(specs, static.proto.graph, static.shape)
    return Branch(
        module=with_bounds(open_import.bounded(module), sizes.dims),
        inputs=spans.with_marks(drawn, file.proto.graph),
        dims=sizes.dims,
        notes=tuple(sizes.notes),
    )


def joined(branches: Mapping[bool, Branch], inputs: Sequence[TensorSpec], switch: str) -> IRModule:
    """The module whose `main` takes all inputs, and calls the branch that the switch names."""
    builder = relax.BlockBuilder()
    functions = {
        value: _Moved(builder, each.module).function(f"{PREFIX}{str(value).lower()}")
        for value, each in branches.items()
    }
    variables: dict[str, Any] = {}
    params = {spec.name: relax.Var(spec.name, _type(spec, variables)) for spec in inputs}

    def called(value: bool) -> Any:
        arguments = [params[spec.name] for spec in branches[value].inputs]
        return relax.SeqExpr([], tvm.ir.Call(functions[value], arguments))

    with builder.function("main", list(params.values())):
        asked = builder.emit(relax.op.reshape(params[switch], relax.ShapeExpr([])))
        builder.emit_func_output(builder.emit(relax.If(asked, called(True), called(False))))
    made: IRModule = builder.get()
    return made


def _type(spec: TensorSpec, variables: dict[str, Any]) -> Any:
    def size_of(size: Size) -> Any:
        if not isinstance(size, Dim):
            return tirx.const(size, "int64")
        return variables.setdefault(size.name, tirx.Var(size.name, "int64"))

    return relax.TensorType(relax.ShapeExpr(list(map(size_of, spec.shape))), spec.dtype)


@mutator
class _Moved(PyExprMutator):
    """A module's functions, moved into another under names that are free there."""

    def __init__(self, builder: Any, module: IRModule) -> None:
        super().__init__(module)
        self._target, self._module = builder, module
        self._moved: dict[str, Any] = {}

    def function(self, name: str) -> Any:
        """Move `main`, and all that it calls; what it is called by now."""
        main = self.visit_expr(self._module["main"]).without_attr("global_symbol")
        return self._target.add_func(main, name)

    def visit_global_var_(self, op: Any) -> Any:
        """A loop nest, which is moved as it is met."""
        if op.name_hint not in self._moved:
            func = self._module[op]
            self._moved[op.name_hint] = self._target.add_func(func, op.name_hint)
        return self._moved[op.name_hint]


def inputs_of(
    specs: Sequence[TensorSpec], branches: Sequence[Branch], switch: str
) -> tuple[TensorSpec, ...]:
    """The inputs of the whole, whose sizes lie within the bounds of each branch that reads them.

    A size that a branch takes for the sum of others is one of its own here: it may be another sum
    in the other branch.  Random inputs make sense to the first of them.
    """
    found: dict[str, Dim] = {}
    for each in branches:
        sizes = {name: dim.nominal for name, dim in each.dims.items()}
        for size in (size for spec in each.inputs for size in spec.shape):
            if isinstance(size, Dim):
                dim = replace(size, parts=(), plus=0, usual=size.usual or size.at(sizes))
                found[size.name] = _within(found.get(size.name, dim), dim)
    drawn = {spec.name: spec.span for each in reversed(branches) for spec in each.inputs}
    drawn[switch] = (1, 1)

    def of(size: Size) -> Size:
        if not isinstance(size, Dim):
            return size
        return found.get(size.name, Dim(size.name, low=0))  # nobody reads it

    return tuple(
        replace(spec, shape=tuple(map(of, spec.shape)), span=drawn.get(spec.name)) for spec in specs
    )


def ways(
    branches: Mapping[bool, Branch], inputs: Sequence[TensorSpec], switch: str
) -> tuple[tuple[TensorSpec, ...], ...]:
    """The inputs with which each branch is computed; what it does not read has one size alone."""
    found: list[tuple[TensorSpec, ...]] = []
    for value, each in branches.items():
        own = {spec.name: spec for spec in each.inputs}
        ignored = {spec.name: _least(spec, each.dims) for spec in inputs}
        ignored[switch] = replace(ignored[switch], span=(int(value),) * 2)
        found.append(tuple(own.get(spec.name, ignored[spec.name]) for spec in inputs))
    return tuple(found)


def _least(spec: TensorSpec, known: Mapping[str, Dim]) -> TensorSpec:
    """An input as small as it can be, but for sizes that are known, and not empty."""
    shape = (
        size.above(max(size.low, 1)) if isinstance(size, Dim) and size.name not in known else size
        for size in spec.shape
    )
    return replace(spec, shape=tuple(shape))


def _within(one: Dim, other: Dim) -> Dim:
    """A size within the bounds of both.  Raises InputError where there is none."""
    highs = [dim.high for dim in (one, other) if dim.high is not None]
    low, high = max(one.low, other.low), min(highs, default=None)
    dim = replace(one, low=low, high=high, step=lcm(one.step, other.step), usual=None)
    return checked(replace(dim, usual=one.usual) if dim.admits(one.usual or 0) else dim)


def outputs_of(
    branches: Sequence[Branch], names: list[str], inputs: Sequence[TensorSpec]
) -> tuple[TensorSpec, ...]:
    """What the whole gives: a size that is not the same in all branches is open.

    Raises ModelError where an output has another type or rank in one branch.
    """
    known = {d.name: d for spec in inputs for d in spec.shape if isinstance(d, Dim)}
    made = [_named_alike(output_specs(b.module, names, b.dims), b) for b in branches]
    return tuple(_same(specs, known) for specs in zip(*made, strict=True))


def _named_alike(specs: Sequence[TensorSpec], branch: Branch) -> list[TensorSpec]:
    """Outputs with the name in the inputs of a size that others alone tell."""
    sizes = (size for spec in branch.inputs for size in spec.shape if isinstance(size, Dim))
    first = {size.parts[0]: size.name for size in sizes if len(size.parts) == 1 and not size.plus}

    def of(size: Size) -> Size:
        return Dim(first.get(size.name, size.name)) if isinstance(size, Dim) else size

    return [replace(spec, shape=tuple(map(of, spec.shape))) for spec in specs]


def _same(specs: Sequence[TensorSpec], known: Mapping[str, Dim]) -> TensorSpec:
    """An output as all branches give it."""
    first = specs[0]
    if len({(spec.dtype, len(spec.shape)) for spec in specs}) > 1:
        told = " and ".join(spec.describe() for spec in specs)
        raise ModelError(f"an output is of one kind in each branch, not {told}")

    def of(axis: int, sizes: Sequence[Size]) -> Size:
        if len(set(map(str, sizes))) > 1:
            return Dim(f"{first.name}_{axis}", low=0)
        return known.get(str(sizes[0]), sizes[0])

    sizes = zip(*(spec.shape for spec in specs), strict=True)
    return replace(first, shape=tuple(of(*each) for each in enumerate(sizes)))
