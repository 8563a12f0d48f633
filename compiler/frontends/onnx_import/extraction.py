"""Take the regions out of an ONNX graph: a model for each, and what is left with calls of them."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from hybridc.compiler.delegation.runtime_values import ELEMENTS
from hybridc.compiler.frontends.onnx_graph import corners, transforms
from hybridc.compiler.frontends.onnx_graph.liveness import used_names
from hybridc.compiler.frontends.onnx_graph.model_file import Proto
from hybridc.compiler.frontends.onnx_graph.versions import lower_numbers
from hybridc.compiler.frontends.onnx_import.graph import REGION
from hybridc.compiler.frontends.onnx_import.operators import walk
from hybridc.compiler.frontends.onnx_import.partition import Cut
from hybridc.compiler.model import Array, OpaqueSpec, Region, TensorSpec

# Initialisers above this size, in bytes, are stored as weights and not in the region's model.
_SMALL_BYTES = 2**16


@dataclass(frozen=True)
class Parts:
    """A static graph and how it is cut.

    `weights` are the graph inputs of `proto` that hold weights; `types` and `specs` tell of every
    value what it is in ONNX and to compiled code.
    """

    proto: Proto
    weights: Mapping[str, Array]
    types: Mapping[str, Proto]
    specs: Mapping[str, TensorSpec]
    nodes: Sequence[Proto]
    cut: Cut

    @cached_property
    def regions(self) -> list[Region]:
        """The regions in the order of their calls."""
        return [self._region(i, nodes) for i, nodes in enumerate(self.cut.regions)]

    def outer(self) -> tuple[Proto, dict[str, Array]]:
        """What is left, with a node for each region, and the weights that it uses itself."""
        import onnx

        nodes = list(self._outer_nodes())
        used = {name for node in nodes for name in used_names(node)}
        used |= {value.name for value in self.proto.graph.output}
        copy = onnx.ModelProto()
        copy.CopyFrom(self.proto)
        graph = copy.graph
        del graph.node[:], graph.initializer[:], graph.value_info[:], graph.input[:]
        graph.node.extend(nodes)
        graph.initializer.extend(t for t in self.proto.graph.initializer if t.name in used)
        graph.input.extend(
            self._handle(value)
            for value in self.proto.graph.input
            if value.name not in self.weights or value.name in used
        )
        return copy, {name: array for name, array in self.weights.items() if name in used}

    def opaque_inputs(self) -> list[str]:
        """Inputs of the model that only regions look into."""
        return [
            value.name
            for value in self.proto.graph.input
            if isinstance(self.specs.get(value.name), OpaqueSpec)
        ]

    def _handle(self, value: Proto) -> Proto:
        import onnx

        spec = self.specs.get(value.name)
        if not isinstance(spec, OpaqueSpec):
            return value
        return onnx.helper.make_tensor_value_info(value.name, ELEMENTS[spec.dtype], spec.shape)  # pyright: ignore[reportArgumentType]

    def _outer_nodes(self) -> Iterator[Proto]:
        import onnx

        index = 0
        for ours, theirs in self.cut.steps:
            yield from (self.nodes[i] for i in ours)
            if theirs:
                region = self.regions[index]
                names = ([spec.name for spec in side] for side in (region.inputs, region.outputs))
                yield onnx.helper.make_node(REGION, *names, name=region.name, index=index)
                index += 1

    def _region(self, index: int, members: Sequence[int]) -> Region:
        import onnx

        nodes = [self.nodes[i] for i in members]
        inputs, outputs = self._inputs(nodes), self._outputs(members)
        constants, weights = self._constants(nodes)
        graph = onnx.helper.make_graph(
            nodes,
            f"region{index}",
            [self._value_info(name) for name in inputs],
            [self._value_info(name) for name in outputs],
            constants,
        )
        model = onnx.helper.make_model(
            graph,
            opset_imports=self.proto.opset_import,
            functions=self.proto.functions,
            ir_version=self.proto.ir_version,
            producer_name="hybridc",
        )
        lower_numbers(model)
        corners.write_out(model)
        transforms.write_out(model)
        return Region(
            name=f"region{index}",
            proto=model.SerializeToString(deterministic=True),
            weights=weights,
            inputs=tuple(self._spec(name) for name in inputs),
            outputs=tuple(self._spec(name) for name in outputs),
            operators=dict(Counter(node.op_type for node in walk(graph)).most_common()),
        )

    def _value_info(self, name: str) -> Proto:
        import onnx

        kind = self.types.get(name)
        if kind is None:
            return onnx.ValueInfoProto(name=name)
        return onnx.helper.make_value_info(name, kind)

    def _spec(self, name: str) -> TensorSpec:
        return self.specs.get(name) or OpaqueSpec(name, type="unknown")

    def _inputs(self, nodes: Sequence[Proto]) -> list[str]:
        """What the nodes read of other parts, in the order in which they read it."""
        inside = {name for node in nodes for name in node.output}
        found: dict[str, None] = {}
        for node in nodes:
            # Subgraphs read by name what lies around them, in no order.
            names = [*node.input, *sorted(used_names(node) - set(node.input))]
            found.update(dict.fromkeys(n for n in names if n in self._values and n not in inside))
        return list(found)

    def _outputs(self, members: Sequence[int]) -> list[str]:
        own = set(members)
        wanted = {value.name for value in self.proto.graph.output}
        for index, node in enumerate(self.nodes):
            if index not in own:
                wanted |= used_names(node)
        return [name for i in members for name in self.nodes[i].output if name and name in wanted]

    def _constants(self, nodes: Sequence[Proto]) -> tuple[list[Proto], dict[str, Array]]:
        """Initialisers that the nodes read: those that are small, and the bulk of the others."""
        import onnx

        used = {name for node in nodes for name in used_names(node)}
        kept: list[Proto] = []
        bulk = {name: array for name, array in self.weights.items() if name in used}
        for tensor in self.proto.graph.initializer:
            if tensor.name not in used:
                continue
            if tensor.ByteSize() > _SMALL_BYTES and _storable(tensor):
                bulk[tensor.name] = onnx.numpy_helper.to_array(tensor)
            else:
                kept.append(tensor)
        kept += [_external(name, array) for name, array in bulk.items()]
        return kept, bulk

    @cached_property
    def _values(self) -> set[str]:
        """Inputs of the model and results of its nodes, constants left out."""
        named = {name for node in self.nodes for name in node.output if name}
        inputs = {value.name for value in self.proto.graph.input if value.name not in self.weights}
        return named | inputs


def _storable(tensor: Proto) -> bool:
    import onnx

    return str(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)) in ELEMENTS


def _external(name: str, array: Array) -> Proto:
    """An initialiser whose bytes lie elsewhere: the session gets them in memory."""
    import onnx

    tensor = onnx.TensorProto(
        name=name,
        data_type=ELEMENTS[str(array.dtype)],
        dims=array.shape,
        data_location=onnx.TensorProto.EXTERNAL,
    )
    for key, value in (("location", "weights"), ("offset", "0"), ("length", str(array.nbytes))):
        tensor.external_data.add(key=key, value=value)
    return tensor
