"""Torch programs as ONNX models, by torch's own exporter."""

from collections.abc import Callable
from functools import cache
from typing import Any

from hybridc.compiler.errors import ModelError
from hybridc.compiler.frontends.onnx_graph import origin
from hybridc.compiler.frontends.torch_import import decompositions, exact_numbers, repairs
from hybridc.compiler.frontends.torch_import.onnx_functions import translations

_OPSET = 20  # the newest for which every converter of the importer was written
_BFLOAT16_OPSET = 22  # the first whose convolutions and poolings take it; nothing else changed


def to_onnx(exported: Any, inputs: list[str], outputs: list[str]) -> Any:
    """Export a program to an `onnx.ModelProto` with these names of inputs and outputs.

    Raises ModelError for what ONNX would have otherwise.
    """
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.onnx._internal.exporter import _core

    _require_axes(exported)
    _require_no_dropout(exported)
    narrow = _has_bfloat16(exported)
    opset = _BFLOAT16_OPSET if narrow else _OPSET
    # Another kernel's results have other strides, for which the views behind it were not traced.
    with sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        program = repairs.repaired(exact_numbers.kept(decompositions.for_onnx(exported)))
        _require_reductions(program)
        _require_numbers(program)
        onnx_program = _core.export(
            program,
            registry=_converters(opset),
            verbose=False,
            opset_version=opset,
            optimize=False,
            input_names=inputs,
            output_names=outputs,
        )
    if not narrow:  # folded batch norms leave weights of float32 to bfloat16
        _optimize(onnx_program.model)
    proto = onnx_program.model_proto
    origin.tell_torch(proto)
    return proto


@cache
def _converters(opset: int) -> Any:
    """Those of torch's exporter and ours.

    `torch.onnx.export` reads their sources each time, which takes longer than a small export.
    """
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    registry = ONNXRegistry.from_torchlib(opset)
    for target, function in translations().items():
        registry.register_op(target, function)
    return registry


def _optimize(model: Any) -> None:
    """Do to a model in place what torch's option `optimize` does, but for rules that are loose.

    These take a constant within 1e-8 of 0, or 1e-5 of 1, for it: `x + 1e-9` became x.
    """
    from onnx_ir import passes
    from onnx_ir.passes import common as common_passes
    from onnxscript import optimizer, rewriter
    from onnxscript.rewriter.rules.common import _no_op

    # Their default rules are private, and other parts of them untyped.
    known: Any = rewriter
    folding: Any = vars(optimizer)["constant_folding"]
    common: Any = common_passes
    loose = {id(rule) for rule in _no_op.rules}
    rules = [rule for rule in known._DEFAULT_REWRITE_RULES if id(rule) not in loose]
    fold = folding.FoldConstantsPass(
        shape_inference=True,
        input_size_limit=folding.DEFAULT_CONSTANT_FOLD_INPUT_SIZE_LIMIT,
        output_size_limit=folding.DEFAULT_CONSTANT_FOLD_OUTPUT_SIZE_LIMIT,
    )
    unused = (
        common.RemoveUnusedNodesPass(),
        common.RemoveUnusedFunctionsPass(),
        common.RemoveUnusedOpsetsPass(),
    )
    passes.Sequential(
        common.InlinePass(),
        passes.PassManager([fold, known.RewritePass(rules), *unused], steps=2, early_stop=True),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.LiftSubgraphInitializersToMainGraphPass(),
        common.DeduplicateInitializersPass(),
        common.CommonSubexpressionEliminationPass(),
        common.OutputFixPass(),
        common.NameFixPass(),
    )(model)


def _require_axes(exported: Any) -> None:
    """Raise ModelError where a scalar is searched, which has no axes in torch and one in ONNX."""
    for node in exported.graph.nodes:
        searched = str(node.target) == "aten.nonzero.default"
        if searched and node.args[0].meta["val"].dim() == 0:
            raise ModelError("operator 'aten.nonzero.default' of a scalar is not supported")


def _require_no_dropout(exported: Any) -> None:
    """Raise ModelError where attention or a recurrent layer drops at random: ONNX's do not."""
    for node in exported.graph.nodes:
        schema = getattr(node.target, "_schema", None)
        known = [argument.name for argument in schema.arguments] if schema else []
        given = dict(zip(known, node.args, strict=False)) | node.kwargs
        if given.get("dropout_p") or (given.get("dropout") and given.get("train")):
            raise ModelError(f"operator {str(node.target)!r} draws random numbers")


def _require_numbers(exported: Any) -> None:
    """Raise ModelError where float64 meets a number that the exporter would round to float32."""
    for node in exported.graph.nodes:
        if (number := exact_numbers.rounded(node)) is not None:
            raise ModelError(
                f"operator {str(node.target)!r} is not supported with float64 and {number!r},"
                " which would be rounded to float32"
            )


def _require_reductions(exported: Any) -> None:
    """Raise ModelError where scattered numbers are averaged, for which the last one is written."""
    for node in exported.graph.nodes:
        if str(node.target) == "aten.scatter_reduce.two" and node.args[4] == "mean":
            raise ModelError("operator 'aten.scatter_reduce.two' is not supported with a mean")


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
