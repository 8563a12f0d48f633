"""A region some of whose nodes Python computes: they, and sessions of ONNX Runtime around them."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from hybridc.compiler.delegation.host_operators import HOST, check
from hybridc.compiler.model import Region

Values = dict[str, Any]
_STANDARD = ("", "ai.onnx")


class MixedSession:
    """Runs as a session of ONNX Runtime does, by value only.

    `open_part` opens a region that is ONNX Runtime's alone.  Raises ArtifactError as it does, and
    for a node that Python does not compute as it asks.
    """

    def __init__(self, region: Region, open_part: Callable[[Region], Any]) -> None:
        import onnx

        model = onnx.ModelProto.FromString(region.proto)
        self._constants = {
            tensor.name: onnx.numpy_helper.to_array(tensor)
            for tensor in model.graph.initializer
            if tensor.data_location != onnx.TensorProto.EXTERNAL
        }
        self._constants |= region.weights
        self._parts = [
            _Host(nodes[0]) if ours else _Foreign.of(region, model, nodes, open_part)
            for ours, nodes in _runs(model.graph.node)
        ]

    def run(self, names: Sequence[str], feed: Mapping[str, Any]) -> list[Any]:
        """Compute outputs by name from values by name."""
        values: Values = {**self._constants, **feed}
        for part in self._parts:
            values.update(part.run(values))
        return [values[name] for name in names]


def _runs(nodes: Sequence[Any]) -> list[tuple[bool, list[Any]]]:
    """Nodes in their order: each of ours by itself, the others as many as stand together."""
    found: list[tuple[bool, list[Any]]] = []
    for ours, group in groupby(nodes, _is_ours):
        members = list(group)
        found += [(True, [node]) for node in members] if ours else [(False, members)]
    return found


def _is_ours(node: Any) -> bool:
    return node.domain in _STANDARD and node.op_type in HOST


class _Host:
    """A node that Python computes."""

    def __init__(self, node: Any) -> None:
        import onnx

        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        self._attributes = {name: _decoded(value) for name, value in attributes.items()}
        self._compute = HOST[node.op_type]
        self._inputs, self._output = list(node.input), str(node.output[0])
        check(node.op_type, self._attributes)

    def run(self, values: Values) -> Values:
        operands = [_plain(values[name]) for name in self._inputs]
        return {self._output: self._compute(self._attributes, operands)}


@dataclass(frozen=True)
class _Foreign:
    """Nodes that ONNX Runtime computes."""

    session: Any
    inputs: Sequence[str]
    outputs: Sequence[str]

    @classmethod
    def of(
        cls, region: Region, model: Any, nodes: Sequence[Any], open_part: Callable[[Region], Any]
    ) -> "_Foreign":
        import onnx

        graph = onnx.shape_inference.infer_shapes(model).graph
        infos = {v.name: v for v in [*graph.input, *graph.value_info, *graph.output]}
        constants = {tensor.name: tensor for tensor in model.graph.initializer}
        written = {name for node in nodes for name in node.output if name}
        # A subgraph reads by name whatever lies around it.
        read = {name for node in nodes for name in _read(node)}
        others = [node for node in model.graph.node if node not in nodes]
        wanted = {value.name for value in model.graph.output}
        wanted |= {name for node in others for name in _read(node)}
        inputs = sorted(name for name in read - written if name in infos and name not in constants)
        outputs = sorted(written & wanted)
        part = onnx.helper.make_graph(
            nodes,
            model.graph.name,
            [infos[name] for name in inputs],
            [infos.get(name) or onnx.ValueInfoProto(name=name) for name in outputs],
            [tensor for name, tensor in constants.items() if name in read],
        )
        whole = onnx.ModelProto()
        whole.CopyFrom(model)
        whole.graph.CopyFrom(part)
        own = replace(
            region,
            proto=whole.SerializeToString(deterministic=True),
            weights={name: array for name, array in region.weights.items() if name in read},
            operators=dict(Counter(node.op_type for node in nodes)),
        )
        return cls(open_part(own), inputs, outputs)

    def run(self, values: Values) -> Values:
        feed = {name: values[name] for name in self.inputs}
        return dict(zip(self.outputs, self.session.run(self.outputs, feed), strict=True))


def _read(node: Any) -> set[str]:
    names = {name for name in node.input if name}
    for attribute in node.attribute:
        for graph in [attribute.g] if attribute.HasField("g") else attribute.graphs:
            names |= {value.name for value in graph.output}
            for inner in graph.node:
                names |= _read(inner)
    return names


def _plain(value: Any) -> Any:
    """A value as numpy has it."""
    return value.numpy() if type(value).__name__ == "OrtValue" else value


def _decoded(value: Any) -> Any:
    """Text as `str`, in lists too."""
    if isinstance(value, list):
        return [_decoded(item) for item in value]
    return value.decode(errors="replace") if isinstance(value, bytes) else value
