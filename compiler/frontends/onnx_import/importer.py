"""TVM's importer of ONNX graphs, with our converters ahead of its own.

Ours replace those that it lacks, that compute something else, or that make opaque loop nests: a
loop nest is a wall for the graph passes, through which no layout passes and nothing folds.
"""

import importlib
import pkgutil
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from types import MappingProxyType, SimpleNamespace
from typing import Any

import tvm
from tvm import relax
from tvm.relax.frontend.onnx.onnx_frontend import ONNXGraphImporter

from hybridc.compiler.dims import Dim, Shape, named
from hybridc.compiler.errors import UnsupportedError
from hybridc.compiler.frontends import onnx as families
from hybridc.compiler.frontends.onnx.first_opsets import renewed
from hybridc.compiler.frontends.onnx.node import Converter, Node, Scope
from hybridc.compiler.frontends.onnx.same_windows import OF_WINDOWS, framed
from hybridc.compiler.frontends.onnx_graph.model_file import Proto
from hybridc.compiler.frontends.onnx_import import joined_sizes, open_shapes, size_arithmetic
from hybridc.compiler.frontends.onnx_import.open_branches import chosen_branch
from hybridc.compiler.frontends.onnx_import.open_node import OpenNode
from hybridc.compiler.frontends.onnx_import.sizes import Sizes
from hybridc.compiler.ir.rewrite import are_known, extent_of
from hybridc.compiler.kernels.images import resampling

# Operators of any number of operands, each of which has to be there.
_OF_MANY = frozenset({"Concat", "Einsum", "Max", "Mean", "Min", "SequenceConstruct", "Sum"})

# Which input holds the weights, as large as an attribute says if it is there.
_WEIGHTS = MappingProxyType({"Conv": 1, "ConvInteger": 1, "ConvTranspose": 1, "QLinearConv": 3})


class Importer(ONNXGraphImporter):
    """TVM's importer, with our converters ahead of its own.

    Open sizes are variables, `sizes` knows them, and what is computed of them alone is no tensor
    but an expression.  `of_torch` tells whose coordinates resized images have.
    """

    sizes: Sizes
    of_torch: bool

    @classmethod
    def of(cls, shapes: Mapping[str, Shape], sizes: Sizes, of_torch: bool) -> "Importer":
        """An importer of a graph whose inputs have these shapes; `sizes` learns the open ones."""
        for size in named(shapes.values()).values():  # before those that are sums of them
            sizes.variable(size)
        fixed = {
            name: [sizes.variable(size) if isinstance(size, Dim) else size for size in shape]
            for name, shape in shapes.items()
        }
        importer = cls(fixed, "float32")
        importer.sizes, importer.of_torch = sizes, of_torch
        return importer

    def _construct_nodes(self, graph: Any) -> None:
        """Nodes one after another; without open sizes as TVM does it."""
        if not self.sizes.variables:
            super()._construct_nodes(graph)
            return
        self._construct_open(graph.node)
        self._read_as_data([value.name for value in graph.output])

    def _construct_open(self, nodes: Iterable[Proto]) -> None:
        for node in nodes:
            if (branch := chosen_branch(self.sizes, node)) is not None:
                self._nodes.update(branch.constants)
                self._construct_open(branch.nodes)
            else:
                self._construct(node)

    def _construct(self, node: Proto) -> None:
        """One node beside open sizes."""
        if size_arithmetic.take(self.sizes, node, self._nodes):
            for name in node.output:
                self._nodes[name] = relax.ShapeExpr([])  # its place; never read
        elif (opened := self._open(node)) is not None:
            made = opened if isinstance(opened, list) else [opened]
            for name, value in zip(node.output, made, strict=False):
                self._nodes[name] = self.bb.emit(value)
        else:
            self._read_as_data(node.input)
            joined_sizes.unite(node, self._nodes, self.sizes, self.bb)
            super()._construct_nodes(SimpleNamespace(node=[node]))  # pyright: ignore[reportArgumentType]
        _require_sizes(node, self._nodes, self.sizes)
        if node.op_type in OF_WINDOWS:
            _require_windows(node, self._nodes, self.sizes)
        if node.op_type == "TopK":
            _require_elements(node, self._nodes, self.sizes)

    def _open(self, node: Proto) -> Any:
        """A node whose result has a shape of open sizes, or None."""
        convert = open_shapes.CONVERTERS.get(node.op_type)
        if convert is None or node.domain not in ("", "ai.onnx"):
            return None
        inputs = [self._nodes[name] if name else None for name in node.input]
        numbers = [
            self.sizes.numbers(name, value) if name else None
            for name, value in zip(node.input, inputs, strict=True)
        ]
        if not any(map(self._is_open, node.input)):
            return None
        self._read_as_data(node.input[: 0 if node.op_type in ("ConstantOfShape", "Range") else 1])
        inputs = [self._nodes[name] if name else None for name in node.input]
        options = self._parse_attr(node.attribute)
        return convert(OpenNode(inputs, numbers, options, self.sizes))

    def _is_open(self, name: str) -> bool:
        if name in self.sizes.known:
            return True
        extents = self.sizes.shape_of(self._nodes[name]) if name else None
        return extents is not None and not all(isinstance(size, int) for size in extents)

    def _read_as_data(self, names: Any) -> None:
        """Make tensors of sizes that operators read as data; constants where none is open."""
        for name in names:
            if name in self.sizes.known:
                made = self.sizes.tensor(name)
                plain = isinstance(made, tvm.ir.GenericConst)
                self._nodes[name] = made if plain else self.bb.emit(made)

    def _check_for_unsupported_ops(self, graph: Any) -> None:
        """What cannot be imported was refused before, by names that people know."""

    def _convert_operator(
        self, op_name: str, inputs: list[Any], attrs: dict[str, Any], opset: int
    ) -> Any:
        if op_name in _WEIGHTS:
            _require_kernel(inputs[_WEIGHTS[op_name]], attrs.get("kernel_shape"))
        made = self._converted(op_name, inputs, attrs, opset)
        if op_name in OF_WINDOWS:
            _require_room(inputs[0], self.bb.normalize(made))
        return made

    def _converted(self, op_name: str, inputs: list[Any], attrs: dict[str, Any], opset: int) -> Any:
        if op_name in _OF_MANY and None in inputs:  # TVM would follow it as a pointer
            raise UnsupportedError("an operand that is left out")
        count, scope = attrs["tvm_custom"]["num_outputs"], Scope(self.bb)
        node = Node(op_name, inputs, attrs, count, opset, scope, of_torch=self.of_torch)
        node = framed(renewed(node))
        # TVM's own list, in which what is left out is None.
        inputs, attrs = type(inputs)(node.inputs), dict(node.attributes)
        converter = converters().get(op_name)
        if converter is not None:
            converted = converter(node)
            if isinstance(converted, list):
                return relax.Tuple([self.bb.normalize(value) for value in converted])
            if converted is not None:
                return self.bb.normalize(converted)
        if op_name == "Resize":
            _drop_empty_scales(inputs)
            attrs = self._told(attrs)
        return super()._convert_operator(op_name, inputs, attrs, opset)

    def _told(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """The attributes of a Resize, whose rounding tells whose it is unless it rounds."""
        if attrs.get("mode", b"nearest") == b"nearest":
            return attrs
        rounding = resampling.TORCH_ROUNDING if self.of_torch else resampling.ONNX_ROUNDING
        return {**attrs, "nearest_mode": rounding.encode()}


def _require_sizes(node: Proto, values: dict[str, Any], sizes: Sizes) -> None:
    """Raise UnsupportedError where a result has sizes that nobody knows before the call."""
    for name in node.output:
        kind = getattr(values.get(name), "ty", None)
        if kind is None or not isinstance(kind, relax.TensorType):
            continue
        if not _follows(kind.shape, sizes):
            del values[name]  # whoever asks how far the import came finds this node
            raise UnsupportedError(
                f"open sizes ({', '.join(sizes.variables)}) from which the shape of its result "
                "does not follow; fix them with --shape"
            )


def _require_kernel(weights: Any, kernel: Sequence[int] | None) -> None:
    """Raise UnsupportedError where weights have another size than an attribute says."""
    size = _sides(weights.ty)
    if kernel is not None and size and are_known(size) and size != list(kernel):
        raise UnsupportedError(f"kernel_shape={list(kernel)} and weights of {size}")


def _require_room(image: Any, result: Any) -> None:
    """Raise UnsupportedError where no window fits into an image."""
    kind = result.ty.fields[0] if isinstance(result.ty, tvm.ir.TupleType) else result.ty
    for size, left in zip(_sides(image.ty), _sides(kind), strict=False):
        if are_known([size, left]) and left < 1 <= size:
            raise UnsupportedError(f"windows that do not fit into {size} elements")


def _sides(kind: Any) -> list[Any]:
    """The sizes of an image, or of a kernel, behind the first two; none where they are unknown."""
    extents = getattr(getattr(kind, "shape", None), "values", ())
    return [extent_of(extent) for extent in extents[2:]]


def _require_windows(node: Proto, values: dict[str, Any], sizes: Sizes) -> None:
    """Bound open sizes from below by those at which windows fit into an image."""
    for extent in sizes.shape_of(values[node.output[0]]) or ():
        sizes.raise_until_positive(extent, f"a window of {node.op_type} has to fit in")


def _require_elements(node: Proto, values: dict[str, Any], sizes: Sizes) -> None:
    """Bound an open size from below by those at which an axis has as many elements as are taken."""
    axis = next((item.i for item in node.attribute if item.name == "axis"), -1)
    taken, extents = (sizes.shape_of(values[name]) for name in (node.output[0], node.input[0]))
    if taken is not None and extents is not None:
        sizes.raise_until_positive(extents[axis] - taken[axis] + 1, "a TopK takes as many elements")


def _follows(shape: Any, sizes: Sizes) -> bool:
    """Whether a shape is of numbers and of sizes that inputs have."""
    if not isinstance(shape, relax.ShapeExpr):
        return False
    known = list(sizes.variables.values())
    used = [var for size in shape.values for var in tvm.tirx.analysis.undefined_vars(size)]
    return all(any(var.same_as(other) for other in known) for var in used)


def _drop_empty_scales(inputs: list[Any]) -> None:
    """Sizes stand beside scales without elements in opset 11, where no input could be left out."""
    if len(inputs) > 3 and isinstance(inputs[2], tvm.ir.GenericConst):
        inputs[2] = inputs[2] if inputs[2].value.numpy().size else None


@cache
def converters() -> Mapping[str, Converter]:
    """Our converters by operator: the table `CONVERTERS` of every file in `onnx/`.

    Raises ValueError where two files convert one operator.
    """
    found: dict[str, Converter] = {}
    for module in pkgutil.iter_modules(families.__path__, f"{families.__name__}."):
        table = getattr(importlib.import_module(module.name), "CONVERTERS", {})
        if twice := found.keys() & table.keys():
            raise ValueError(f"{module.name} converts again: {', '.join(sorted(twice))}")
        found.update(table)
    return MappingProxyType(found)
