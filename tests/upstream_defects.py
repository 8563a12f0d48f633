"""Defects of the libraries that hybridc builds on, as data: `docs/upstream.md` is made from it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx.inliner
import onnx.shape_inference
import upstream_lowering
from onnx import helper
from upstream_torch import CHECKS


@dataclass(frozen=True)
class Defect:
    """Seen by a node test of ONNX: plain TVM computes something else (`wrong`), or fails."""

    case: str
    kind: str
    what: str
    remedy: str


WRONG, FAILS = "wrong", "fails"
_OURS = "our converter"

TVM = (
    Defect("test_isinf_negative", WRONG, "IsInf ignores detect_negative, detect_positive", _OURS),
    Defect("test_spacetodepth_crd_mode_example", WRONG, "SpaceToDepth ignores mode=CRD", _OURS),
    Defect(
        "test_resize_downsample_scales_cubic",
        WRONG,
        "Resize computes coordinates from sizes even if a scale is not their ratio",
        _OURS,
    ),
    Defect(
        "test_resize_upsample_scales_linear_half_pixel_symmetric",
        FAILS,
        "Resize lacks half_pixel_symmetric",
        _OURS,
    ),
    Defect(
        "test_resize_downsample_scales_linear_antialias", WRONG, "Resize ignores antialias", _OURS
    ),
    Defect("test_reduce_max_empty_set", WRONG, "ReduceMax over no elements is finite", _OURS),
    Defect("test_reduce_min_empty_set", WRONG, "ReduceMin over no elements is finite", _OURS),
    Defect("test_mod_float_edge_cases_fmod_0_float32", WRONG, "Mod by infinity is NaN", _OURS),
    Defect("test_convtranspose_output_shape", WRONG, "ConvTranspose ignores output_shape", _OURS),
    Defect("test_roialign_mode_max", WRONG, "RoiAlign's mode=max computes something else", _OURS),
    Defect(
        "test_layer_normalization_2d_axis0",
        WRONG,
        "LayerNormalization's mean and deviation lose their axes",
        "ONNX's own definition of the operator",
    ),
    Defect(
        "test_attention_4d",
        FAILS,
        "Attention of ai.onnx is treated as com.microsoft's",
        "ONNX's own definition of the operator",
    ),
    Defect("test_pow_types_float32_int32", FAILS, "Pow lacks operands of different types", _OURS),
    Defect("test_onehot_with_axis", FAILS, "OneHot requires constant values", _OURS),
    Defect(
        "test_eyelike_with_dtype", FAILS, "EyeLike refuses another dtype than its input's", _OURS
    ),
    Defect("test_tril_zero", FAILS, "Trilu lacks k as an input, and empty tensors", _OURS),
    Defect("test_constant_pad", FAILS, "Pad lacks a value that is an input", _OURS),
    Defect(
        "test_maxpool_with_argmax_2d_precomputed_pads",
        FAILS,
        "MaxPool lacks the output Indices",
        _OURS,
    ),
    Defect("test_lstm_defaults", FAILS, "no LSTM, GRU, RNN", _OURS),
    Defect("test_dft", FAILS, "no DFT, STFT", _OURS),
    Defect("test_cast_FLOAT_to_FLOAT8E4M3FNUZ", FAILS, "float8 has another exponent", _OURS),
    Defect("test_cast_FLOAT8E4M3FN_to_FLOAT", FAILS, "float8 has no NaN", _OURS),
    Defect("test_top_k_uint64", FAILS, "TopK lacks uint64", _OURS),
)


def _inliner_gives_up() -> bool:
    """A node whose middle input is left out cannot be inlined."""
    value = helper.make_tensor_value_info
    made = helper.make_node("Attention", ["q", "k", "v", "", "pk", "pv"], ["y", "nk", "nv"])
    shape = [1, 2, 3, 4]
    inputs = [value(name, 1, shape) for name in ("q", "k", "v", "pk", "pv")]
    outputs = [value(name, 1, None) for name in ("y", "nk", "nv")]
    graph = helper.make_graph([made], "g", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)])
    try:
        _inlined(model, "Attention")
    except RuntimeError:
        return True
    return False


def _inlined(model: Any, operator: str) -> Any:
    return onnx.inliner.inline_selected_functions(
        model, [("", operator)], inline_schema_functions=True
    )


def _stft_is_two_sided() -> bool:
    """The inferred shape has all bins, where those of one side are the default."""
    value = helper.make_tensor_value_info
    made = helper.make_node("STFT", ["x", "step", "", "n"], ["y"])
    constants = [helper.make_tensor(name, 7, [], [8]) for name in ("step", "n")]
    graph = helper.make_graph([made], "g", [value("x", 1, [1, 64, 1])], [value("y", 1, None)])
    graph.initializer.extend(constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    inferred = onnx.shape_inference.infer_shapes(model)
    return bool(inferred.graph.output[0].type.tensor_type.shape.dim[2].dim_value == 8)


@dataclass(frozen=True)
class Other:
    """A defect with a check of its own, true as long as the defect is there.

    `needs` is a package without which the check cannot be made.
    """

    package: str
    what: str
    remedy: str
    check: Callable[[], bool]
    needs: str = ""


OTHERS = (
    Other(
        "TVM",
        "lowering simplifies `0 * x` and `0 / x` of floats to 0",
        "compiler/kernels/lowerings.py keeps such constants out of loop nests",
        upstream_lowering.products_with_zero_are_zero,
    ),
    Other(
        "TVM",
        "LLVM is told that integers do not overflow: `x + 4294967295` becomes 4294967295",
        "compiler/kernels/lowerings.py keeps such constants out of loop nests",
        upstream_lowering.unsigned_sums_do_not_wrap,
    ),
    Other(
        "TVM",
        "lowering simplifies `x + y - y` of floats to x",
        "`shield-floats` binds the operands",
        upstream_lowering.differences_cancel,
    ),
    Other(
        "TVM",
        "lowering assumes that floats are ordered: `x == x`, `not x < y`",
        "`shield-floats` reads comparisons as bytes",
        upstream_lowering.orders_are_total,
    ),
    Other(
        "TVM",
        "lowering keeps `x <= x` of floats (not a defect; tests for NaN rely on it)",
        "none needed",
        upstream_lowering.an_order_with_itself_stays,
    ),
    Other(
        "TVM",
        "maxima and minima lose a NaN in their first operand",
        "`propagate-nan`",
        upstream_lowering.extremes_forget_nan,
    ),
    Other(
        "TVM",
        "lowering truncates an array after the last element whose address is taken",
        "schedules/cuda/tir.py refers to each array as a whole",
        upstream_lowering.arrays_are_cut,
    ),
    Other(
        "onnx",
        "the inliner fails if an input in the middle is omitted",
        "compiler/frontends/onnx_graph/functions.py expands functions",
        _inliner_gives_up,
    ),
    Other(
        "onnx",
        "the inferred shape of STFT is two-sided by default",
        "compiler/frontends/onnx_model.py makes the default explicit",
        _stft_is_two_sided,
    ),
    *(
        Other(package, what, remedy, check, needs="torch")
        for package, what, remedy, check in CHECKS
    ),
)

_HEAD = """# Defects upstream

Defects of the libraries that hybridc builds on, what shows each of them, and our remedy. Made by
`pytest tests/test_upstream.py --update-golden` from `tests/upstream_defects.py`. The same test
checks that each is still in the installed versions, so an upgrade shows which remedies can go.

"wrong" is a wrong answer without an error; "fails" is an exception.
"""


def page() -> str:
    """The text of `docs/upstream.md`."""
    rows = [("package", "defect", "shown by", "our remedy")]
    rows += [
        ("TVM", defect.what, f"`{defect.case}`: {defect.kind}", defect.remedy) for defect in TVM
    ]
    rows += [
        (other.package, other.what, f"`{other.check.__name__.lstrip('_')}`", other.remedy)
        for other in OTHERS
    ]
    head, *body = (f"| {' | '.join(row)} |" for row in rows)
    return "\n".join([_HEAD, head, "| --- | --- | --- | --- |", *body, ""])


def outcome(model: Any, feed: dict[str, Any], expected: list[Any]) -> str:
    """What plain TVM makes of a model: `right`, `wrong` or `fails`."""
    import contextlib
    import io

    from tvm.relax.frontend.onnx import from_onnx

    from hybridc.compiler.conformance.comparison import Tolerance, difference
    from hybridc.compiler.ir.evaluate import evaluate

    shapes = {name: list(array.shape) for name, array in feed.items()}
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            module = from_onnx(model, shape_dict=shapes)
            got = evaluate(module, list(feed.values()))
    except Exception:
        return FAILS
    return (
        WRONG
        if difference(got, [np.asarray(e) for e in expected], Tolerance(1e-3, 1e-7))
        else "right"
    )
