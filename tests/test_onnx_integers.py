"""Products of integers, and models that were quantised dynamically, against ONNX Runtime."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn import drawn
from hypothesis import strategies as st
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from onnx_models import build, node

from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.driver import compile_source
from hybridc.compiler.frontends.onnx_reference import OnnxReference
from hybridc.compiler.runtime.session import InferenceSession

KINDS = {"uint8": TensorProto.UINT8, "int8": TensorProto.INT8}
DRAW = np.random.default_rng(0)
# Rules of products whose weights are packed.
PRODUCTS = {"dense", "byte-windows"}


def integers(dtype: str, *shape: int) -> Any:
    limits = np.iinfo(dtype)
    return DRAW.integers(limits.min, limits.max, shape, dtype, endpoint=True)


def zero_points(
    kinds: tuple[str, str], points: tuple[str, str], outputs: int, *places: dict[str, Any]
) -> list[str]:
    """The inputs' names for both operands' zero points, whose values go to their places.

    ONNX Runtime takes one for all of the data, and one for each output of the weights.
    """
    names = ["", ""]
    for at, (point, kind) in enumerate(zip(points, kinds, strict=True)):
        if point != "none":
            value = integers(kind, *((outputs,) if point == "each" and at == 1 else ()))
            names[at] = "pq"[at]
            places[at][names[at]] = np.zeros_like(value) if point == "zero" else value
    return names if names[1] else [name for name in names if name]


@drawn(
    12,
    60,
    kinds=st.tuples(st.sampled_from(sorted(KINDS)), st.sampled_from(sorted(KINDS))),
    lead=st.sampled_from([(1,), (5,), (2, 3)]),
    depth=st.integers(1, 40),
    columns=st.integers(1, 40),
    points=st.tuples(*[st.sampled_from(["none", "zero", "one", "each"])] * 2),
    known=st.booleans(),
)
def test_products_of_integers(
    kinds: tuple[str, str],
    lead: tuple[int, ...],
    depth: int,
    columns: int,
    points: tuple[str, str],
    known: bool,
) -> None:
    feed = {"a": integers(kinds[0], *lead, depth)}
    constants = {"b": integers(kinds[1], depth, columns)}
    place = constants if known else feed
    names = ["a", "b", *zero_points(kinds, points, columns, place, constants)]
    proto = build(
        [helper.make_node("MatMulInteger", names, ["y"])],
        [(name, KINDS[str(value.dtype)], value.shape) for name, value in feed.items()],
        [("y", TensorProto.INT32, (*lead, columns))],
        constants,
    )
    outcome = compile_source(proto, Options(verify="off", threads=2, fallback=False))
    (got,) = InferenceSession(outcome.artifact).run(None, feed)
    (wanted,) = OnnxReference(proto)(feed)
    np.testing.assert_array_equal(got, wanted)


@drawn(
    12,
    60,
    kinds=st.tuples(st.sampled_from(sorted(KINDS)), st.sampled_from(sorted(KINDS))),
    pads=st.tuples(*[st.integers(0, 2)] * 4),
    strides=st.tuples(*[st.integers(1, 2)] * 2),
    groups=st.sampled_from([1, 1, 2]),
    points=st.tuples(*[st.sampled_from(["none", "zero", "one", "each"])] * 2),
    known=st.booleans(),
)
def test_convolutions_of_integers(
    kinds: tuple[str, str],
    pads: tuple[int, ...],
    strides: tuple[int, int],
    groups: int,
    points: tuple[str, str],
    known: bool,
) -> None:
    feed = {"x": integers(kinds[0], 2, 4 * groups, 9, 7)}
    constants = {"w": integers(kinds[1], 6, 4, 3, 3)}
    names = ["x", "w", *zero_points(kinds, points, 6, constants if known else feed, constants)]
    made = helper.make_node(
        "ConvInteger", names, ["y"], pads=pads, strides=strides, group=groups, kernel_shape=[3, 3]
    )
    inputs = [(name, KINDS[str(value.dtype)], value.shape) for name, value in feed.items()]
    proto = build([made], inputs, [("y", TensorProto.INT32, None)], constants)
    outcome = compile_source(proto, Options(verify="off", threads=2, fallback=False))
    (got,) = InferenceSession(outcome.artifact).run(None, feed)
    (wanted,) = ReferenceEvaluator(proto).run(None, feed)
    np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("kind", ["QInt8", "QUInt8"])
def test_a_model_that_was_quantised_dynamically_multiplies_bytes(tmp_path: Path, kind: str) -> None:
    quantization = pytest.importorskip("onnxruntime.quantization")
    import onnx

    constants = {"w": noise(48, 96), "b": noise(96), "v": noise(96, 24)}
    nodes = [
        node("MatMul", "x w", "m"),
        node("Add", "m b", "n"),
        node("Relu", "n", "r"),
        node("MatMul", "r v", "y"),
    ]
    x, y = ("x", TensorProto.FLOAT, (20, 48)), ("y", TensorProto.FLOAT, (20, 24))
    onnx.save(build(nodes, [x], [y], constants), tmp_path / "model.onnx")
    made = tmp_path / "quantised.onnx"
    kinds = quantization.QuantType
    quantization.quantize_dynamic(tmp_path / "model.onnx", made, weight_type=getattr(kinds, kind))
    outcome = compile_source(made, Options(threads=2, fallback=False))
    products = [kernel for kernel in outcome.report.kernels if kernel.rule in PRODUCTS]
    assert [kernel.precision for kernel in products] == ["int8", "int8"]
    # Scales and zero points are single numbers, which every kernel here can do with.
    assert "fallback" not in {kernel.rule for kernel in outcome.report.kernels}


def noise(*shape: int) -> Any:
    return DRAW.standard_normal(shape).astype("float32")
