"""Torch programs as ONNX models, by torch's own exporter."""

from collections.abc import Callable
from typing import Any

from hybridc.compiler.errors import ModelError
from hybridc.compiler.frontends.torch_import import decompositions, repairs

_OPSET = 20  # the newest for which every converter of the importer was written
_BFLOAT16_OPSET = 22  # the first whose convolutions and poolings take it; nothing else changed


def to_onnx(exported: Any, inputs: list[str], outputs: list[str]) -> Any:
    """Export a program to an `onnx.ModelProto` with these names of inputs and outputs.

    Raises ModelError for what ONNX would have otherwise.
    """
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    _require_axes(exported)
    narrow = _has_bfloat16(exported)
    # Another kernel's results have other strides, for which the views behind it were not traced.
    with sdpa_kernel(SDPBackend.MATH):
        made = torch.onnx.export(
            repairs.repaired(decompositions.for_onnx(exported)),
            dynamo=True,
            verbose=False,
            opset_version=_BFLOAT16_OPSET if narrow else _OPSET,
            optimize=not narrow,  # folded batch norms leave weights of float32 to bfloat16
            input_names=inputs,
            output_names=outputs,
        )
    if made is None:
        raise ModelError("torch.onnx.export gave no model")
    return made.model_proto


def _require_axes(exported: Any) -> None:
    """Raise ModelError where a scalar is searched, which has no axes in torch and one in ONNX."""
    for node in exported.graph.nodes:
        searched = str(node.target) == "aten.nonzero.default"
        if searched and node.args[0].meta["val"].dim() == 0:
            raise ModelError("operator 'aten.nonzero.default' of a scalar is not supported")


def once(make: Callable[[], Any]) -> Callable[[], Any]:
    """Call a function at the first call alone; its result, or what it raised, stands from then."""
    kept: list[Any] = []

    def give() -> Any:
        if not kept:
            try:
                kept.append(make())
            except Exception as error:  # exporters raise anything
                kept.append(error)
        if isinstance(kept[0], Exception):
            raise kept[0]
        return kept[0]

    return give


def _has_bfloat16(exported: Any) -> bool:
    nodes = exported.graph.nodes
    types = {str(getattr(node.meta.get("val"), "dtype", "")) for node in nodes}
    return "torch.bfloat16" in types
