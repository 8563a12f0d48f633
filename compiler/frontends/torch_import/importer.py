"""TVM's importer of exported torch programs, with our converters ahead of its own.

Torch says of each result its shape and type: what is imported otherwise is refused, as it would
go on as a wrong answer.  What is the same at each call is computed by torch.
"""

import contextlib
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Any

import torch
from torch.export.graph_signature import InputKind
from torch.utils._pytree import tree_leaves, tree_map
from tvm import relax
from tvm.error import InternalError
from tvm.relax.frontend.torch.exported_program_translator import ExportedProgramImporter

from hybridc.compiler.errors import ModelError, UnsupportedError
from hybridc.compiler.frontends.aten import complex  # noqa: A004 - the numbers
from hybridc.compiler.frontends.aten.call import Call, Converter, part_of, sizes
from hybridc.compiler.frontends.onnx.node import Expr, Scope, dtype, static
from hybridc.compiler.frontends.torch_import import decompositions, node_results
from hybridc.compiler.frontends.torch_import.partial_spectra import Spectra
from hybridc.compiler.frontends.torch_import.values import argument_values, draws
from hybridc.compiler.frontends.torch_import.written_slices import Writes
from hybridc.compiler.interfaces import IRModule
from hybridc.compiler.ir.rewrite import constant

# What TVM's own converters compute wrongly, and torch can write otherwise.
_MISREAD = frozenset(
    {
        "_native_batch_norm_legit.no_stats",
        "_native_batch_norm_legit_functional.default",
        "grid_sampler_2d.default",
    }
)


def import_program(exported: Any) -> IRModule:
    """Convert to Relax, with the weights as constants of `main`.

    Raises ModelError for an operator that is not known, or is imported with another type.
    """
    importer, ours = Importer(), {*converters(), *complex.COMPLEX}
    importable = {*importer.convert_map, *ours} - _MISREAD
    program = decompositions.for_relax(exported, importable, ours)  # pyright: ignore[reportArgumentType]
    try:
        return importer.from_exported_program(program, False, True, False, None)
    except Exception:
        with contextlib.suppress(InternalError):
            importer.block_builder._end_block()  # else it complains as it is dropped
        raise


class Importer(ExportedProgramImporter):
    """TVM's importer, with our converters ahead of its own and a check behind each."""

    def __init__(self) -> None:
        super().__init__()
        self._same: dict[Any, Any] = {}  # results that are the same at each call, as torch has them
        self._spectra, self._writes = Spectra(()), Writes(())

    @staticmethod
    def _convert_pytorch_tensor_to_tvm(tensor_value: Any) -> Any:
        """Weights; complex ones as pairs."""
        if tensor_value.is_complex():
            tensor_value = torch.view_as_real(tensor_value.resolve_conj())
        return ExportedProgramImporter._convert_pytorch_tensor_to_tvm(tensor_value)

    def create_input_vars(self, exported_program: Any) -> Any:
        """Variables for weights and for inputs, by name; static shapes are all there are."""
        weights: dict[str, Any] = {}
        inputs: dict[str, Any] = {}
        values = {node.name: node.meta.get("val") for node in exported_program.graph.nodes}
        for spec in exported_program.graph_signature.input_specs:
            value = values.get(spec.arg.name)
            ordering = spec.kind is InputKind.TOKEN  # of side effects
            if ordering or not isinstance(value, torch.Tensor):
                continue
            shape = [*sizes(value), *([2] if value.is_complex() else [])]
            variable = relax.Var(spec.arg.name, relax.TensorType(shape, part_of(value)))
            kept = inputs if spec.kind is InputKind.USER_INPUT else weights
            kept[spec.arg.name] = variable
        return weights, inputs, {}

    def _check_unsupported_func_type(self, nodes: Any) -> None:
        """What is not known is told as its turn comes: much of it is the same at each call."""

    def _translate_fx_graph(
        self, graph_module: Any, nodes: Any, inputs_vars: Any, custom_ops: Any = None
    ) -> Any:
        """Import the nodes in their order; returns the outputs."""
        self._spectra, self._writes = Spectra(nodes), Writes(nodes)
        for node in nodes:
            if node.op == "placeholder" and node.name in inputs_vars:
                self.env[node] = inputs_vars[node.name]
            elif node.op == "get_attr":
                self.env[node] = getattr(graph_module, node.target)
            elif node.op == "call_function":
                self.env[node] = self._imported(node)
            elif node.op == "output":
                return self._flatten_output_args(self.retrieve_args(node)[0])  # pyright: ignore[reportOptionalSubscript]
        raise ModelError("the program has no outputs")

    def _imported(self, node: Any) -> Expr:
        """A node's result, of the type that torch gives it.  Raises ModelError."""
        if node.target is torch.ops.higher_order.with_effects:
            return node_results.only_checks(node)
        if (value := node_results.empty(node)) is not None:
            return tree_map(_constant, value)
        if (value := self._evaluated(node)) is not None:
            self._same[node] = value
            return tree_map(_constant, value)
        if draws(node.target):
            raise ModelError(f"operator {str(node.target)!r} draws random numbers")
        if self._spectra.holds(node):
            return self._in_part(node)
        return self._checked((self._of_complex if _complex(node) else self._of_real)(node), node)

    def _in_part(self, node: Any) -> Expr:
        """A Fourier transform of which not all is computed, or a slice of one."""
        if node in self._spectra.parts:
            return self._by(complex.COMPLEX[node.target.__name__], node)
        return self._spectra.part(Scope(self.block_builder), node, self.env)

    def _of_real(self, node: Any) -> Expr:
        name = node.target.__name__
        if (converter := converters().get(name)) is not None:
            return self._by(converter, node)
        if name in self.convert_map:
            return self.convert_map[name](node)
        raise ModelError(f"operator {str(node.target)!r} is not supported")

    def _of_complex(self, node: Any) -> Expr:
        """Complex numbers are pairs; of a linear operator both parts are computed alike."""
        name = node.target.__name__
        if (converter := complex.COMPLEX.get(name)) is not None:
            return self._by(converter, node)
        padded = name == "constant_pad_nd.default" and any(node.args[2:])
        if name not in complex.LINEAR or padded:
            raise ModelError(f"operator {str(node.target)!r} of complex numbers is not supported")
        scope, kept, halves = Scope(self.block_builder), dict(self.env), []
        inputs = {each: self._both(scope, each) for each in node.all_input_nodes}
        try:
            for part in (0, 1):
                self.env.update({each: both[part] for each, both in inputs.items()})
                halves.append(self._of_real(node))
        finally:
            self.env.update(kept)
        if isinstance(halves[0], tuple | list):
            return tuple(complex.paired(scope, *both) for both in zip(*halves, strict=True))
        return complex.paired(scope, *halves)

    def _both(self, scope: Scope, node: Any) -> tuple[Expr, Expr]:
        """The real and imaginary parts of an operand, which may be real or a tuple."""
        value, imported = node.meta.get("val"), self.env[node]
        if isinstance(value, tuple | list):
            pairs = [complex.parts(scope, field) for field in imported]
            return tuple(zip(*pairs, strict=True))  # type: ignore[return-value]
        if value.is_complex():
            return complex.parts(scope, imported)
        if value.dtype == torch.bool:  # a condition
            return imported, imported
        if not value.dtype.is_floating_point:  # places
            return imported, imported
        return imported, scope.zeros_like(imported)

    def _by(self, converter: Converter, node: Any) -> Expr:
        """The result by a converter of ours."""
        arguments, value = self._bound(node), node.meta["val"]
        scope, values = Scope(self.block_builder), argument_values(node)
        arguments = {**arguments, **self._spectra.arguments(scope, node, self.env)}
        arguments |= self._writes.arguments(node, self.env)
        pairs = frozenset(name for name, v in values.items() if v.is_complex())
        used = node_results.used(node)
        call = Call(str(node.target), arguments, value, scope, pairs, values, used)
        try:
            result = converter(call)
        except UnsupportedError as error:
            raise ModelError(f"operator {call.operator!r} is not supported with {error}") from error
        if isinstance(result, tuple):
            return tuple(map(self.block_builder.normalize, result))
        return self.block_builder.normalize(result)

    def _bound(self, node: Any) -> Mapping[str, Any]:
        """The arguments of a call by the names of its schema."""
        known = node.target._schema.arguments
        arguments = dict(zip((argument.name for argument in known), node.args, strict=False))
        arguments |= {
            key: value for key, value in node.kwargs.items() if key in {a.name for a in known}
        }
        return {
            a.name: self._retrieve_args(arguments[a.name])
            if a.name in arguments
            else a.default_value
            for a in known
        }

    def _evaluated(self, node: Any) -> Any:
        """What torch computes of a node that reads nothing but constants; None for others."""
        target, inputs = node.target, node.all_input_nodes
        if not isinstance(target, torch._ops.OpOverload) or node_results.uncertain(target):  # pyright: ignore[reportPrivateUsage]
            return None
        if any(each not in self._same for each in inputs):
            return None
        if not node_results.small(node.meta.get("val")):
            return None
        args, kwargs = torch.fx.map_arg((node.args, node.kwargs), self._same.__getitem__)
        with torch.no_grad():
            result = target(*args, **kwargs)
        return tuple(result) if isinstance(result, list) else result

    def _checked(self, result: Any, node: Any) -> Any:
        """What was made of a node, of torch's types; integers of another width are converted.

        Raises ModelError for another shape or kind of numbers.
        """
        value = node.meta.get("val")
        if not isinstance(value, torch.Tensor) or not isinstance(result, relax.Expr):
            return result
        wanted = (*sizes(value), *((2,) if value.is_complex() else ()))
        kind = part_of(value)
        if static(result) != wanted or not _alike(dtype(result), kind):
            raise ModelError(
                f"operator {str(node.target)!r} is imported as "
                f"{dtype(result)}{list(static(result))}, not as {kind}{list(wanted)}"
            )
        if dtype(result) == kind:
            return result
        return self.block_builder.emit(relax.op.astype(result, kind))


@cache
def converters() -> Mapping[str, Converter]:
    """Our converters by operator: the table `CONVERTERS` of every file in `aten/`.

    Raises ValueError where two files convert one operator.
    """
    found: dict[str, Converter] = {}
    for module in decompositions.families():
        table: Mapping[str, Converter] = getattr(module, "CONVERTERS", {})
        if twice := found.keys() & table.keys():
            raise ValueError(f"{module.__name__} converts again: {', '.join(sorted(twice))}")
        found.update(table)
    return MappingProxyType(found)


def _alike(kind: str, wanted: str) -> bool:
    return kind == wanted or (kind.lstrip("u")[:3] == wanted.lstrip("u")[:3] == "int")


def _constant(value: Any) -> Any:
    """A tensor as a constant of Relax; complex numbers are pairs in a last axis."""
    if not isinstance(value, torch.Tensor):
        return value
    plain = torch.view_as_real(value.resolve_conj()) if value.is_complex() else value
    return constant(plain.resolve_neg().contiguous().numpy(), part_of(value))


def _complex(node: Any) -> bool:
    """Whether a node reads or gives complex numbers, which TVM's converters know nothing of."""
    values = [each.meta.get("val") for each in (node, *node.all_input_nodes)]
    return any(isinstance(v, torch.Tensor) and v.is_complex() for v in tree_leaves(values))
