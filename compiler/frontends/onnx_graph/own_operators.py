"""Operators of ours, which graphs hold where no operator of ONNX says the same, and their types."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from hybridc.compiler.frontends.onnx_graph import bags, microsoft_blocks, microsoft_grouped
from hybridc.compiler.frontends.onnx_graph.model_file import Proto

Types = Mapping[str, Proto]


def _same(node: Proto, types: Types) -> Proto:
    return types[node.input[0]]


# By operator, the type of its one output, from those of its inputs.
KINDS: Mapping[str, Callable[[Proto, Types], Proto]] = MappingProxyType(
    {
        bags.OPERATOR: bags.kind,
        microsoft_blocks.ROUNDABLE: _same,
        microsoft_grouped.JOINED: microsoft_grouped.joined_kind,
    }
)
