"""An input that chooses between the branches of a model, as in exports of decoders.

One file then holds two graphs that share their weights: one for the first tokens, and one for those
that come behind others (`use_cache_branch`).
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import prod

import numpy as np

from hybridc.compiler.dims import Shape, fixed, is_open
from hybridc.compiler.frontends.onnx_graph import open_axes, static_inputs
from hybridc.compiler.frontends.onnx_graph.liveness import used_names
from hybridc.compiler.frontends.onnx_graph.model_file import OnnxFile, Proto, copied


def switch_of(graph: Proto, shapes: Mapping[str, Shape]) -> str | None:
    """The input of one truth value that an `If` asks; None where each asks for something else.

    The graph is folded, so that what is asked follows from the input by few operators, if it does.
    """
    choices = {str(value.name) for value in graph.input if _chooses(value, shapes)}
    constants = {tensor.name for tensor in graph.initializer}
    origins: dict[str, str] = {name: name for name in choices}
    for node in graph.node:
        if node.op_type == "If" and node.input[0] in origins:
            return origins[str(node.input[0])]
        read = {name for name in node.input if name} - constants
        found = {origins.get(name, "") for name in read}
        if len(found) == 1 and "" not in found:
            origins |= dict.fromkeys(node.output, found.pop())
    return None


def _chooses(value: Proto, shapes: Mapping[str, Shape]) -> bool:
    """Whether an input is one truth value."""
    import onnx

    shape = shapes.get(value.name)
    if shape is None or value.type.tensor_type.elem_type != onnx.TensorProto.BOOL:
        return False
    return not is_open(shape) and prod(fixed(shape, {})) == 1


def with_value(file: OnnxFile, name: str, shape: Shape, value: bool) -> OnnxFile:
    """The file in which an input has this value at each call."""
    array = np.full(fixed(shape, {}), value)
    return replace(file, proto=static_inputs.fixed(file.proto, {name: array}))


def without_unread(file: OnnxFile, graph: Proto) -> OnnxFile:
    """The file without the inputs that a graph made of it does not read.

    What a branch ignores says nothing of its sizes.
    """
    read = {value.name for value in graph.output}.union(*map(used_names, graph.node))
    proto = copied(file.proto)
    kept = [v for v in proto.graph.input if v.name in read or v.name in file.weights]
    del proto.graph.input[:]
    proto.graph.input.extend(kept)
    return replace(file, proto=proto)


def told(shapes: Mapping[str, Shape], file: OnnxFile) -> dict[str, Shape]:
    """What of `shapes` says something of a file that has fewer inputs."""
    axes = {value.name: open_axes.axes(value) or () for value in file.inputs()}
    known = {*axes, *_names(axes)}
    return {name: shape for name, shape in shapes.items() if name in known}


def _names(axes: Mapping[str, open_axes.Axes]) -> Iterator[str]:
    return (size for each in axes.values() for size in each if isinstance(size, str))
