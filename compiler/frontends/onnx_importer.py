"""TVM's importer of ONNX graphs, with our converters ahead of its own.

Ours replace those that it lacks, that compute something else, or that make opaque loop nests: a
loop nest is a wall for the graph passes, through which no layout passes and nothing folds.
"""

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Any

import tvm
from tvm import relax
from tvm.relax.frontend.onnx.onnx_frontend import ONNXGraphImporter

from hybridc.compiler.frontends import onnx as families
from hybridc.compiler.frontends.onnx.node import Converter, Node, Scope


class Importer(ONNXGraphImporter):
    """TVM's importer, with our converters ahead of its own."""

    def _check_for_unsupported_ops(self, graph: Any) -> None:
        """What cannot be imported was refused before, by names that people know."""

    def _convert_operator(
        self, op_name: str, inputs: list[Any], attrs: dict[str, Any], opset: int
    ) -> Any:
        converter = converters().get(op_name)
        if converter is not None:
            count = attrs["tvm_custom"]["num_outputs"]
            node = Node(op_name, inputs, attrs, count, opset, Scope(self.bb))
            converted = converter(node)
            if isinstance(converted, list):
                return relax.Tuple([self.bb.normalize(value) for value in converted])
            if converted is not None:
                return self.bb.normalize(converted)
        if op_name == "Resize":
            _drop_empty_scales(inputs)
        return super()._convert_operator(op_name, inputs, attrs, opset)


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
