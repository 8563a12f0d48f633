"""Precisions below fp32 from end to end: how near, how small, and when they are refused."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.helper import np_dtype_to_tensor_dtype

from hybridc.compiler import driver, target
from hybridc.compiler.artifacts.artifact import Artifact
from hybridc.compiler.assurance.reduced import REDUCED
from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.errors import InputError
from hybridc.compiler.interfaces import Context
from hybridc.compiler.ir.evaluate import evaluate
from hybridc.compiler.kernels.products import packing
from hybridc.compiler.model import Array
from hybridc.compiler.orchestration import precisions
from hybridc.compiler.quantization import group_quantization

pytestmark = pytest.mark.filterwarnings("ignore")
LOWER = [name for name in precisions.PRECISIONS if name != precisions.FULL]


def model(nodes: list[Any], *shape: int, **weights: Array) -> Any:
    """An ONNX model from x of a shape to y."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    held = [numpy_helper.from_array(w.astype(np.float32), name) for name, w in weights.items()]
    graph = helper.make_graph(nodes, "g", [x], [y], held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def block(rows: int = 4, width: int = 64, scale: float = 1.0) -> Any:
    """A transformer's block without attention: norm, two products, residual."""
    draw = np.random.default_rng(0)
    node = helper.make_node
    nodes = [
        node("LayerNormalization", ["x", "gain"], ["n"], axis=-1),
        node("MatMul", ["n", "up"], ["p"]),
        node("Add", ["p", "bias"], ["a"]),
        node("Gelu", ["a"], ["h"]),
        node("MatMul", ["h", "down"], ["d"]),
        node("Add", ["d", "x"], ["y"]),
    ]
    return model(
        nodes,
        rows,
        width,
        gain=np.ones(width),
        up=draw.standard_normal((width, 4 * width)) * scale / width**0.5,
        bias=draw.standard_normal(4 * width),
        down=draw.standard_normal((4 * width, width)) / (4 * width) ** 0.5,
    )


@pytest.mark.parametrize("rows", [1, 40])
@pytest.mark.parametrize("dtype", LOWER)
def test_each_precision_is_near_fp32_and_says_what_it_touched(dtype: str, rows: int) -> None:
    made = driver.compile_source(block(rows), Options(dtype=dtype))
    assert made.artifact.certificate["precision"] == dtype
    (agreement,) = made.report.agreement
    assert agreement["cosine"] > REDUCED[dtype].cosine
    assert agreement["max_abs"] > 0
    told = "2 of 2 products" if dtype == "int8" else "2 matmul"
    assert any(told in note for note in made.report.notes)


@pytest.mark.parametrize(
    ("dtype", "share"),
    [
        ("bf16", 1 / 2),
        ("fp16", 1 / 2),
        ("int8-dynamic", 1 / 4 + 0.01),
        ("int8-weights", (1 + 2 / 128) / 4),
        ("int4-weights", (1 / 2 + 2 / 32) / 4),
    ],
)
def test_weights_take_the_bytes_that_their_precision_says(dtype: str, share: float) -> None:
    held = []
    for each in ("fp32", dtype):
        made = driver.compile_source(block(1, 128), Options(dtype=each))
        held.append(stored(made.artifact))
    assert held[1] <= held[0] * share * 1.02


def stored(artifact: Artifact) -> int:
    """Bytes of the weights in the file, biases left out."""
    return sum(w.nbytes for w in artifact.stored().values() if w.ndim > 1)


def windows(channels: int) -> Any:
    """Convolutions of several windows, one of them transposed, and a depthwise one."""
    draw = np.random.default_rng(0)

    def weight(*shape: int) -> Array:
        return draw.standard_normal(shape) / np.prod(shape[1:]) ** 0.5

    nodes = [
        helper.make_node("Conv", ["x", "stem"], ["a"], pads=[2] * 4),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "alone"], ["c"], pads=[1] * 4, group=channels),
        helper.make_node("Conv", ["c", "halves"], ["d"], strides=[2, 2], group=2),
        helper.make_node("ConvTranspose", ["d", "up"], ["y"], strides=[2, 2]),
    ]
    return model(
        nodes,
        *(1, 8, 13, 11),
        stem=weight(channels, 8, 5, 5),
        alone=weight(channels, 1, 3, 3),
        halves=weight(2 * channels, channels // 2, 3, 3),
        up=weight(2 * channels, 16, 4, 4),
    )


@pytest.mark.parametrize(
    ("dtype", "share"),
    [("int8-weights", (1 + 2 / 128) / 4), ("int4-weights", (1 / 2 + 2 / 32) / 4)],
)
def test_weights_of_windows_take_the_bytes_that_their_precision_says(
    dtype: str, share: float
) -> None:
    source = windows(64)
    made = driver.compile_source(source, Options(dtype=dtype))
    assert any("nn.conv2d in int" in note for note in made.report.notes)
    given = sum(4 * np.prod(w.dims) for w in source.graph.initializer if w.name != "alone")
    depthwise = 4 * 64 * 9
    assert stored(made.artifact) <= depthwise + given * share * 1.02


@pytest.mark.parametrize("bits", [8, 4])
def test_a_window_convolves_with_the_dequantised_weights(bits: int) -> None:
    draw = np.random.default_rng(0)
    w = draw.standard_normal((16, 6, 3, 2)).astype(np.float32)

    def build(weight: Array = w) -> Any:
        how: dict[str, Any] = {
            "strides": [1, 2],
            "pads": [1, 0, 2, 1],
            "dilations": [2, 1],
            "group": 2,
        }
        convolution = helper.make_node("Conv", ["x", "w"], ["y"], **how)
        return model([convolution], 2, 12, 9, 8, w=weight)

    module, context, _ = lowered(
        build, f"layout,fold-constants,quantize-weights{{bits={bits} group=16}}"
    )
    x = draw.standard_normal((2, 12, 9, 8)).astype(np.float32)
    (got,) = evaluate(module, [x])
    matrix = w.transpose(2, 3, 1, 0).reshape(36, 16)
    wide = group_quantization.quantize(matrix, bits, 16).dequantized()
    dequantised = wide.reshape(3, 2, 6, 16).transpose(3, 2, 0, 1)
    session = onnxruntime.InferenceSession(build(dequantised).SerializeToString())
    answers: Any = session.run(None, {"x": x})
    np.testing.assert_allclose(got, answers[0], rtol=1e-4, atol=1e-5)
    assert context.lowered == {"nn.conv2d": 1}


def test_dynamic_quantisation_is_the_formula() -> None:
    draw = np.random.default_rng(3)
    w = draw.standard_normal((37, 21)).astype(np.float32)
    x = (draw.standard_normal((5, 37)) * 10.0 ** np.arange(-2, 3)[:, None]).astype(np.float32)
    x[1] = 0
    x[2] = np.abs(x[2])
    made = driver.compile_source(
        model([helper.make_node("MatMul", ["x", "w"], ["y"])], 5, 37, w=w),
        Options(dtype="int8-dynamic", calibration={"x": x}),
    )
    from hybridc.compiler.runtime.session import InferenceSession

    (got,) = InferenceSession(made.artifact).run(None, {"x": x})
    held = group_quantization.quantize(w, 8, 37)
    low, high = np.minimum(x.min(1), 0), np.maximum(x.max(1), 0)
    step = np.maximum((high - low) / np.float32(255), np.finfo(np.float32).tiny)[:, None]
    zero = np.rint(-low[:, None] / step)
    q = np.clip(np.rint(x / step) + zero, 0, 255)
    exact = (q - zero).astype(np.int64) @ held.integers.astype(np.int64)
    wanted = exact * step.astype(np.float64) * held.scales[0]
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=0)
    # Half a step of each factor, times the other.
    bound = step / 2 * np.abs(held.dequantized()).sum(0) + np.abs(x) @ np.broadcast_to(
        held.scales[0] / 2, w.shape
    )
    assert (np.abs(got - x.astype(np.float64) @ w) <= bound * 1.0001).all()


@pytest.mark.parametrize("dtype", LOWER)
def test_where_nothing_can_be_lowered_a_precision_is_refused(dtype: str) -> None:
    nothing = model([helper.make_node("Exp", ["x"], ["y"])], 2, 3)
    with pytest.raises(InputError, match=f"dtype {dtype} changes nothing in this model"):
        driver.compile_source(nothing, Options(dtype=dtype))


def convolution(kind: str = "float32", channels: int = 1) -> Any:
    """A convolution of 4 channels, each with so many, and no other product."""
    node = helper.make_node("Conv", ["h", "w"], ["y"], group=4 // channels)
    before = helper.make_node("Cast", ["x"], ["h"], to=np_dtype_to_tensor_dtype(np.dtype(kind)))
    made = model([before, node], 1, 4, 5, 5, w=np.ones((4, channels, 3, 3)))
    weight = numpy_helper.from_array(np.ones((4, channels, 3, 3), kind), "w")
    made.graph.initializer[0].CopyFrom(weight)
    made.graph.output[0].type.tensor_type.elem_type = before.attribute[0].i
    return made


@pytest.mark.parametrize(
    ("source", "dtype", "told"),
    [
        (
            convolution(channels=4),
            "int8-dynamic",
            "it takes products with constant matrices, of which there are none among "
            "1 convolution; fp16, bf16, int8 take convolutions with constant weights",
        ),
        (
            convolution(),
            "int8-weights",
            "it takes products with constant matrices and convolutions that are not depthwise, of "
            "which there are none among 1 depthwise convolution; fp16, bf16, int8 take",
        ),
        (convolution(), "fp16", "it has 1 depthwise convolution, left in float32"),
        (
            convolution("float64", 4),
            "bf16",
            "its products are of float64, and those of float32 alone are lowered",
        ),
        (
            model([helper.make_node("MatMul", ["x", "x"], ["y"])], 3, 3),
            "int8",
            "none among 1 matrix product; fp16, bf16 take products of two activations",
        ),
        (
            model([helper.make_node("Exp", ["x"], ["y"])], 3, 3),
            "int8",
            "it has no matrix product and no convolution",
        ),
    ],
)
def test_a_refusal_says_what_there_is_and_which_precision_takes_it(
    source: Any, dtype: str, told: str
) -> None:
    with pytest.raises(InputError, match=f"dtype {dtype} changes nothing in this model: .*{told}"):
        driver.compile_source(source, Options(dtype=dtype))


def test_float16_needs_the_conversions() -> None:
    old = Options(dtype="fp16", target='{"kind": "llvm", "mcpu": "x86-64-v2"}', verify="off")
    with pytest.raises(InputError, match=r"needs a CPU that converts it \(F16C\).*bf16"):
        driver.compile_source(block(), old)


def test_float16_is_converted_by_vectors() -> None:
    from hybridc.compiler.building.build import compile_kernel
    from hybridc.compiler.kernels.products import contractions
    from hybridc.schedules.dense import Dense

    rule: Any = Dense()
    for name in ("avx2", "avx512"):
        cpu = target.parse(name, threads=2)
        packed = packing.pack_matrix(np.zeros((256, 512), np.float16), cpu.lanes())
        match = rule.match(contractions.dense((32, 256), packed, 512, "float16"), cpu)
        kernel = rule.schedule(match, rule.default(match, cpu)).mod["main"]
        text = compile_kernel(kernel, cpu).mod.inspect_source("asm")
        assert "vcvtph2ps" in text
        assert not re.search(r"(call|jmp)\w*\s+__extendhf", text)


def lowered(build: Callable[[], Any], pass_text: str) -> Any:
    """A model's module behind one pass, and the context of it."""
    from hybridc.compiler import frontend, pipeline

    context = Context(target.parse("avx2", threads=2))
    loaded = frontend.load(build(), shapes={})
    return pipeline.run(pipeline.parse(pass_text), loaded.module, context), context, loaded


@pytest.mark.parametrize("bits", [8, 4])
def test_the_graph_computes_with_the_dequantised_weights(bits: int) -> None:
    draw = np.random.default_rng(0)
    w = draw.standard_normal((37, 11)).astype(np.float32)

    def build() -> Any:
        return model([helper.make_node("MatMul", ["x", "w"], ["y"])], 3, 37, w=w)

    module, context, _ = lowered(build, f"quantize-weights{{bits={bits} group=16}}")
    x = draw.standard_normal((3, 37)).astype(np.float32)
    wide = group_quantization.quantize(w, bits, 16).dequantized()
    np.testing.assert_allclose(evaluate(module, [x])[0], x @ wide, rtol=1e-4, atol=1e-5)
    assert context.lowered == {"matmul": 1}
