"""Make an ONNX graph static: infer every shape, compute what depends on constants alone.

Exporters write shapes as chains such as Shape -> Gather -> Concat -> Reshape.  With static inputs
these are constants, and the importer then sees plain operators with constant axes and sizes.
"""

import math
from collections import deque
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field

import numpy as np

from hybridc.compiler.errors import ModelError
from hybridc.compiler.frontends.onnx.same_windows import OF_WINDOWS
from hybridc.compiler.frontends.onnx_graph import (
    bags,
    branches,
    microsoft,
    own_operators,
    slices,
    versions,
)
from hybridc.compiler.frontends.onnx_graph.branches import MOST_NODES, Branch, Scene
from hybridc.compiler.frontends.onnx_graph.liveness import used_names
from hybridc.compiler.frontends.onnx_graph.model_file import Proto
from hybridc.compiler.frontends.onnx_import import operators
from hybridc.compiler.frontends.onnx_import.evaluation import as_tensor, evaluate, zeros
from hybridc.compiler.model import Array

# Larger results are left to the compiler's own folding, which keeps them out of the graph.
_LIMIT_BYTES = 2**20
# Weights stay 8-bit integers for those passes that compute with them.
_LEFT = {"DequantizeLinear"}
_RANDOM = operators.RANDOM | {"Dropout"}
# Outputs after the first are optional.
_TRAILING = {"BatchNormalization", "Dropout", "LayerNormalization", "MaxPool"}
# Their output has a data-dependent shape, but is never much larger than their input.
_BOUNDED = {"Compress", "NonZero", "Unique"}
Weights = Mapping[str, Array]
_REPEATED = {"Loop", "Scan"}


@dataclass(frozen=True)
class StaticGraph:
    """A folded model, and the types that inference found for its tensors by name."""

    proto: Proto
    types: Mapping[str, Proto]

    def shape(self, name: str) -> tuple[int, ...] | None:
        """The static shape of a tensor, or None where it is not known."""
        return static_shape(self.types.get(name))


def static_shape(kind: Proto | None) -> tuple[int, ...] | None:
    """The sizes in an ONNX type; None unless it is a tensor with every size known."""
    if kind is None or not kind.tensor_type.HasField("shape"):
        return None
    dims = kind.tensor_type.shape.dim
    known = all(dim.HasField("dim_value") for dim in dims)
    return tuple(dim.dim_value for dim in dims) if known else None


def fold(proto: Proto, strict: bool = False, weights: Weights | None = None) -> StaticGraph:
    """Fold a model whose inputs are static; control flow that is known by then is written out.

    `strict` raises ModelError for what ONNX's inference refuses; `weights` are known inputs.
    """
    folder = _Folder(proto, strict, weights or {})
    queue = deque(proto.graph.node)
    while queue:
        node = queue.popleft()
        branch = folder.written_out(node)
        if branch is None:
            folder.take(node)
        else:
            folder.constants.update({tensor.name: tensor for tensor in branch.constants})
            folder.add_types(branch.constants)
            queue.extendleft(reversed(branch.nodes))
            folder.room -= len(branch.nodes) if node.op_type in _REPEATED else 0
    return StaticGraph(folder.result(), folder.types)


@dataclass
class _Folder:
    """Walks the nodes in order, knowing the types and constants before each."""

    proto: Proto
    strict: bool = False
    weights: Weights = field(default_factory=dict[str, Array])
    types: dict[str, Proto] = field(default_factory=dict[str, Proto])
    constants: dict[str, Proto] = field(default_factory=dict[str, Proto])
    makers: dict[str, Proto] = field(default_factory=dict[str, Proto])
    kept: list[Proto] = field(default_factory=list[Proto])
    room: int = MOST_NODES

    def __post_init__(self) -> None:
        graph = self.proto.graph
        self.opsets = {opset.domain: opset.version for opset in self.proto.opset_import}
        self.types.update({value.name: value.type for value in graph.input})
        self.constants.update({tensor.name: tensor for tensor in graph.initializer})
        self.add_types(graph.initializer)

    def add_types(self, tensors: Iterable[Proto]) -> None:
        import onnx

        for tensor in tensors:
            self.types[tensor.name] = onnx.helper.make_tensor_type_proto(
                tensor.data_type, tensor.dims
            )

    def written_out(self, node: Proto) -> Branch | None:
        """What stands in the place of control flow, or of an operator of ONNX Runtime's own."""
        opset, known = self.opsets.get("", 1), (self.constants, self.weights)
        shape = lambda name: static_shape(self.types.get(name))  # noqa: E731
        scene = Scene(self.constants, shape, opset, self.room, self.types, self.makers)
        if (branch := bags.written_out(node, scene)) is not None:
            return branch
        if not has_subgraph(node):
            return microsoft.written_out(node, self.types, opset, known, self.makers)
        return branches.written_out(node, scene)

    def take(self, node: Proto) -> None:
        """Fold one node, or keep it."""
        kind = self.types.get(node.input[0]) if node.input else None
        node, operands = slices.plain(node, self.constants, kind)
        self.constants.update(operands)
        self.add_types(operands.values())
        self.types.update(self._infer(node))
        tensors = self._value(node)
        if tensors is None:
            self.kept.append(node)
            self.makers.update(dict.fromkeys(node.output, node))
            return
        self.constants.update({tensor.name: tensor for tensor in tensors})
        self.add_types(tensors)

    def result(self) -> Proto:
        """The model of the kept nodes that an output needs, with the constants they use."""
        import onnx

        graph = self.proto.graph
        needed = {value.name for value in graph.output}
        live: list[Proto] = []
        for node in reversed(self.kept):
            if needed.intersection(node.output):
                live.append(_without_unused(node, needed))
                needed.update(used_names(node))
        copy = onnx.ModelProto()
        copy.CopyFrom(self.proto)
        del copy.graph.node[:], copy.graph.initializer[:], copy.graph.value_info[:]
        copy.graph.node.extend(reversed(live))
        copy.graph.initializer.extend(
            tensor for name, tensor in self.constants.items() if name in needed
        )
        # Expanding a function asks for the types of what it reads.
        unlisted = needed - {value.name for value in [*copy.graph.input, *copy.graph.output]}
        copy.graph.value_info.extend(
            onnx.helper.make_value_info(name, kind)
            for name, kind in self.types.items()
            if name in unlisted
        )
        return copy

    def _infer(self, node: Proto) -> dict[str, Proto]:
        """Output types by ONNX's own inference for this node; empty where it cannot tell."""
        import onnx

        names = [name for name in node.input if name]
        if any(name not in self.types for name in names):
            return {}
        if (kind := own_operators.KINDS.get(node.op_type)) is not None:
            return {node.output[0]: kind(node, self.types)}
        scope = self.types if has_subgraph(node) else {name: self.types[name] for name in names}
        try:
            schema = versions.inferring_schema(node, self.opsets[node.domain])
            found: dict[str, Proto] = onnx.shape_inference.infer_node_outputs(
                schema,
                node,
                scope,
                {name: self.constants[name] for name in names if name in self.constants},
                opset_imports=list(self.proto.opset_import),
                ir_version=self.proto.ir_version,
            )
        except onnx.checker.ValidationError as error:  # an operator newer than the model's opset
            raise ModelError(f"node {node.name or node.op_type!r}: {error}") from None
        except onnx.shape_inference.InferenceError as error:
            if self.strict:
                operators.require_loose(node, error)
            return {}
        except (KeyError, RuntimeError, onnx.defs.SchemaError):
            return {}
        return found

    def _value(self, node: Proto) -> list[Proto] | None:
        if node.domain not in ("", "ai.onnx"):
            return None
        if node.op_type in ("Shape", "Size"):
            return self._shape_value(node)
        if empty := self._empty(node):
            return empty
        names = [name for name in node.input if name]
        random = not names and node.op_type != "Constant"  # their generators have no inputs
        known = not random and all(name in self.constants for name in names)
        kept = node.op_type in _RANDOM | _LEFT or has_subgraph(node)
        if kept or not known or not self._fits(node):
            return None
        feed = {name: self.constants[name] for name in names}
        return evaluate(node, feed, self.proto, self.types)

    def _shape_value(self, node: Proto) -> list[Proto] | None:
        import onnx

        shape = static_shape(self.types.get(node.input[0]))
        if shape is None:
            return None
        options = {attribute.name: attribute.i for attribute in node.attribute}
        value = np.array(shape[options.get("start", 0) : options.get("end")], np.int64)
        if node.op_type == "Size":
            value = np.array(math.prod(shape), np.int64)
        return [onnx.numpy_helper.from_array(value, node.output[0])]

    def _empty(self, node: Proto) -> list[Proto] | None:
        """The outputs of a node all of whose outputs have no elements."""
        import onnx

        kinds = [self.types.get(name) for name in node.output if name]
        shapes = [static_shape(kind) for kind in kinds]
        if not shapes or any(shape is None or 0 not in shape for shape in shapes):
            return None
        given = static_shape(self.types.get(node.input[0])) if node.input else None
        if node.op_type in OF_WINDOWS and given is not None and 0 not in given:
            return None  # windows that do not fit, which the importer refuses
        named = zip((name for name in node.output if name), kinds, shapes, strict=True)
        tensors = [as_tensor(name, zeros(kind, shape), kind) for name, kind, shape in named]
        return None if None in tensors else [t for t in tensors if isinstance(t, onnx.TensorProto)]

    def _fits(self, node: Proto) -> bool:
        """Whether the outputs are known to be small before anything is computed."""
        if node.op_type in _BOUNDED or node.op_type == "Constant":
            return True
        shapes = [static_shape(self.types.get(name)) for name in node.output if name]
        # Eight bytes bound every element type; strings are refused when their value is known.
        return all(shape is not None and 8 * math.prod(shape) <= _LIMIT_BYTES for shape in shapes)


def _without_unused(node: Proto, needed: Set[str]) -> Proto:
    """A node without the trailing outputs that nobody reads: masks, statistics.

    Some operators can be imported only where such an output is not asked for.
    """
    count = len(node.output)
    while count > 1 and node.output[count - 1] not in needed:
        count -= 1
    if count == len(node.output) or node.op_type not in _TRAILING:
        return node
    copy = type(node)()
    copy.CopyFrom(node)
    del copy.output[count:]
    return copy


def has_subgraph(node: Proto) -> bool:
    """Whether a node carries a graph: If, Loop, Scan, SequenceMap."""
    return any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute)
