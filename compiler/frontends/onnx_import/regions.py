"""Import an ONNX graph, and hand to ONNX Runtime what cannot be imported."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hybridc.compiler.delegation.region_session import open_session
from hybridc.compiler.errors import ArtifactError, ModelError
from hybridc.compiler.frontends.onnx_graph.liveness import used_names
from hybridc.compiler.frontends.onnx_graph.misreadings import misreading
from hybridc.compiler.frontends.onnx_graph.model_file import OnnxFile, Proto
from hybridc.compiler.frontends.onnx_import import extraction, operators, partition, value_types
from hybridc.compiler.frontends.onnx_import.folding import StaticGraph
from hybridc.compiler.frontends.onnx_import.graph import REGION, NodeError, import_graph
from hybridc.compiler.interfaces import IRModule
from hybridc.compiler.model import OpaqueSpec, Region, TensorSpec

_ATTEMPTS = 100  # imports of one graph, each without a node on which the one before it failed
_SAME = 4  # failures of one operator, after which no node of it is tried

Foreign = Callable[[Proto], bool]


@dataclass(frozen=True)
class Imported:
    """A module, the regions that it calls, and how it holds its inputs and outputs."""

    module: IRModule
    regions: tuple[Region, ...]
    specs: Mapping[str, TensorSpec]


def importable(node: Proto) -> bool:
    """Whether a node, with all that its subgraphs hold, is imported rightly and runs fast.

    An If whose condition depends on the data ends the dataflow that the graph passes work in:
    everything around it would be slow.
    """
    if node.op_type == "If" and node.domain in ("", "ai.onnx"):
        return False
    inner = [graph for item in node.attribute for graph in (item.g, *item.graphs)]
    nodes = [node, *(found for graph in inner for found in operators.walk(graph))]
    return all(
        operators.supported(each) and not (each.domain in ("", "ai.onnx") and misreading(each))
        for each in nodes
    )


def _behind_rounded_pools(nodes: Sequence[Proto]) -> set[str]:
    """Values whose shape ONNX infers wrongly.

    By `ceil_mode` it counts windows that begin behind the image, which its operators, and ONNX
    Runtime, leave out.
    """
    found: set[str] = set()
    for node in nodes:
        rounded = any(each.name == "ceil_mode" and each.i for each in node.attribute)
        if rounded or not found.isdisjoint(node.input):
            found.update(node.output)
    return found


def import_with_regions(
    static: StaticGraph,
    file: OnnxFile,
    shapes: Mapping[str, tuple[int, ...]],
    foreign: Foreign = lambda _: False,
) -> Imported:
    """Import what can be imported; `foreign` may say of more nodes that they cannot.

    Raises ModelError where ONNX Runtime takes a region neither.
    """
    graph = _Graph(static, file, shapes, foreign)
    if (whole := graph.whole()) is not None:
        return whole
    for _ in range(_ATTEMPTS):
        imported = graph.attempt()
        if imported is not None:
            return imported
    raise ModelError(f"no part of the graph can be imported: {graph.reason}")


def _is_tuple(kind: Any) -> bool:
    from tvm import relax

    return isinstance(kind, relax.TupleType)


def _spec(name: str, kind: Any) -> TensorSpec | None:
    """A value as Relax has it, where that is a tensor of a static shape."""
    from tvm import relax

    if not isinstance(kind, relax.TensorType) or not isinstance(kind.shape, relax.ShapeExpr):
        return None
    if not all(hasattr(extent, "value") for extent in kind.shape.values):
        return None
    return TensorSpec(name, tuple(map(int, kind.shape.values)), str(kind.dtype))


@dataclass
class _Graph:
    """A graph and what was found to be impossible in it so far, by the names of values."""

    static: StaticGraph
    file: OnnxFile
    shapes: Mapping[str, tuple[int, ...]]
    foreign: Foreign
    failed: set[str] = field(default_factory=set[str])
    failures: Counter[str] = field(default_factory=Counter[str])
    reason: str = ""

    def __post_init__(self) -> None:
        self.nodes: list[Proto] = list(self.static.proto.graph.node)
        types = value_types.complete(self.static)
        self.specs = {name: value_types.spec(name, kind) for name, kind in types.items()}
        self.types = types
        self.written = {name for node in self.nodes for name in node.output if name}
        self.doubtful = _behind_rounded_pools(self.nodes)
        self.able = [importable(node) and not self.foreign(node) for node in self.nodes]

    def whole(self) -> Imported | None:
        """Import all of it, which tells types that ONNX cannot infer; None where not all is ours.

        What becomes of it must have a static shape everywhere, and no other type than ONNX says.
        """
        inputs = [value.name for value in self.static.proto.graph.input]
        if not all(self.able) or any(isinstance(self.specs.get(n), OpaqueSpec) for n in inputs):
            return None
        try:
            module, reached = import_graph(self.static.proto, self.file.weights, self.shapes)
        except NodeError:
            return None
        outputs = {value.name for value in self.static.proto.graph.output}
        # A sequence of known length is a tuple, which nothing but other operators looks into.
        inner = {name for name in self.written - outputs if _is_tuple(reached.get(name))}
        names = (self.written & reached.keys()) - inner
        found = {name: _spec(name, reached.get(name)) for name in names}
        if None in found.values() or any(self._differs(name, reached[name]) for name in found):
            return None
        known = {name: spec for name, spec in found.items() if spec is not None}
        return Imported(module, (), {**self.specs, **known})

    def attempt(self) -> Imported | None:
        """Import with the regions that are needed by now; None where more turn out to be."""
        cut = partition.cut(self.nodes, self._foreign(), used_names)
        parts = extraction.Parts(
            self.static.proto, self.file.weights, self.types, self.specs, self.nodes, cut
        )
        outer, weights = parts.outer()
        shapes = {**self.shapes, **{name: (1,) for name in parts.opaque_inputs()}}
        try:
            module, reached = import_graph(outer, weights, shapes, parts.regions)
        except NodeError as error:
            if error.node is None or not self._learn(error.node, str(error)):
                raise
            return None
        wrong = [name for name, kind in reached.items() if self._differs(name, kind)]
        if wrong:
            self.failed.update(wrong)
            self.reason = f"{wrong[0]!r} is imported with another type"
            return None
        self._require_sizes()
        for region in parts.regions:
            self._try(region)
        return Imported(module, tuple(parts.regions), self.specs)

    def _foreign(self) -> set[int]:
        return {
            index
            for index, node in enumerate(self.nodes)
            if not self.able[index]
            or self.failures[node.op_type] > _SAME
            or not self.failed.isdisjoint(node.output)
            or any(self._opaque(name) for name in (*node.output, *used_names(node)))
        }

    def _opaque(self, name: str) -> bool:
        """Whether compiled code cannot hold a value; of a node's result it has to know the type."""
        spec = self.specs.get(name)
        return isinstance(spec, OpaqueSpec) or (spec is None and name in self.written)

    def _learn(self, node: Proto, reason: str) -> bool:
        """Note what could not be imported; whether that is news.

        A region is imported unless what it reads has a form that it does not take.
        """
        names = set(node.input if node.op_type == REGION else node.output)
        self.reason = reason
        self.failures[node.op_type] += 1
        news = bool(names - self.failed)
        self.failed |= names
        return news

    def _differs(self, name: str, kind: Any) -> bool:
        """Whether a value of ours has another type than ONNX says: it is not what it should be."""
        from tvm import relax

        spec = self.specs.get(name)
        if not isinstance(kind, relax.TensorType) or spec is None or name in self.failed:
            return False
        if isinstance(spec, OpaqueSpec) or not isinstance(kind.shape, relax.ShapeExpr):
            return False
        shape = tuple(int(extent) for extent in kind.shape.values)
        alike = shape == spec.shape or name in self.doubtful
        return not alike or str(kind.dtype) != spec.dtype

    def _require_sizes(self) -> None:
        """Raise ModelError where windows do not fit, which ONNX Runtime refuses as it runs."""
        for name in sorted(self.written):
            spec = self.specs.get(name)
            if spec is None or isinstance(spec, OpaqueSpec):
                continue
            sizes = [size for size in spec.shape if isinstance(size, int)]
            if (least := min(sizes, default=0)) < 0:
                raise ModelError(f"tensor {name!r} has the negative size {least}; {self.reason}")

    def _try(self, region: Region) -> None:
        """Raise ModelError where ONNX Runtime does not take a region."""
        try:
            open_session(region, 1)
        except ArtifactError as error:
            left = [node for node in self.nodes if not importable(node)]
            named = next((n for n in left if n.op_type in region.operators), None)
            if named is None:
                raise ModelError(str(error)) from error
            where = operators.place(named)
            reason = operators.misnamed(named) or f"; {error}"
            raise ModelError(
                f"operator {named.op_type!r} ({where}) is not supported{reason}"
            ) from error
