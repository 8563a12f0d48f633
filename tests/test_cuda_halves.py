"""Models whose tensors have 16 bits, on a GPU: products on tensor cores, float32 within kernels."""

from typing import Any

import numpy as np
import pytest
from cuda_emulator import needs_compiler
from cuda_models import answers, execute, records, residual_network, scheduled, transformer
from onnx import TensorProto, numpy_helper
from onnx_models import FLOAT, build, node
from tvm import relax

from hybridc.compiler import frontend, pipeline, target
from hybridc.compiler.configuration import plans
from hybridc.compiler.interfaces import Context
from hybridc.compiler.ir.rewrite import bindings_of, operator
from hybridc.compiler.model import Array, random_feed

HALF, BRAIN = TensorProto.FLOAT16, TensorProto.BFLOAT16
TYPES = pytest.mark.parametrize("kind", [HALF, BRAIN], ids=["float16", "bfloat16"])
ON_GPU = plans.Options(target="sm_90a")


def narrowed(model: Any, kind: int) -> Any:
    """A model with all its floats in 16 bits, as converters make it."""
    made = type(model)()
    made.CopyFrom(model)
    for value in (*made.graph.input, *made.graph.output):
        if value.type.tensor_type.elem_type == FLOAT:
            value.type.tensor_type.elem_type = kind
    for tensor in made.graph.initializer:
        if tensor.data_type == FLOAT:
            array = numpy_helper.to_array(tensor)
            short = array.astype(_numpy(kind))
            tensor.CopyFrom(numpy_helper.from_array(short, tensor.name))
    return made


def _numpy(kind: int) -> Any:
    from onnx import helper

    return helper.tensor_dtype_to_np_dtype(kind)


def _stored(source: Any, options: plans.Options = ON_GPU) -> set[str]:
    """The types of what a model's kernels store."""
    module, _ = scheduled(frontend.load(source, shapes={}, fallback=False), options)
    bindings = bindings_of(module["main"])
    return {str(each.var.ty.dtype) for each in bindings if operator(each.value) == "call_tir"}


@pytest.mark.parametrize(
    "source",
    [
        narrowed(residual_network(), HALF),  # ONNX Runtime has no convolution of bfloat16
        narrowed(transformer(rows=64, width=64), HALF),
        narrowed(transformer(rows=64, width=64), BRAIN),
    ],
    ids=["images-float16", "text-float16", "text-bfloat16"],
)
def test_products_reach_the_tensor_cores_and_nothing_is_stored_wider(source: Any) -> None:
    kernels = records(source, ON_GPU)
    rules = {record.rule for record in kernels}
    assert rules & {"cuda-tensor-matmul", "cuda-wgmma-matmul"}
    assert not rules & {"cuda-matmul", "cuda-fallback"}
    assert not [each.kernel for each in kernels if each.kernel.startswith("cast")]
    assert len(_stored(source)) == 1
    assert _stored(source) <= {"float16", "bfloat16"}


@TYPES
def test_as_many_kernels_as_of_float32(kind: int) -> None:
    """Norms, projections and attention are found in 16 bits too."""
    source = transformer(rows=64, width=64)
    assert len(records(narrowed(source, kind), ON_GPU)) == len(records(source, ON_GPU))
    assert "cuda-attention" in {each.rule for each in records(narrowed(source, kind), ON_GPU)}


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
@pytest.mark.parametrize("source", [residual_network(), transformer(rows=64, width=64)])
def test_contracts_of_16_bits_store_residuals_so(source: Any, dtype: str) -> None:
    """All but the results, which are float32 as the model has them."""
    options = plans.Options(target="sm_90a", dtype=dtype)
    module, _ = scheduled(frontend.load(source, shapes={}, fallback=False), options)
    types = [
        str(each.var.ty.dtype)
        for each in bindings_of(module["main"])
        if operator(each.value) == "call_tir" and isinstance(each.var, relax.DataflowVar)
    ]
    assert types
    assert "float32" not in types
    rules = {record.rule for record in records(source, options)}
    assert rules & {"cuda-tensor-matmul", "cuda-wgmma-matmul"}
    assert "cuda-fallback" not in rules


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("source", [residual_network(), transformer()], ids=["images", "text"])
def test_answers_are_as_near_as_those_of_a_model_rounded_once(source: Any) -> None:
    got, _ = answers(narrowed(source, HALF), ON_GPU)
    model = frontend.load(source, shapes={}, fallback=False)
    feed = random_feed(model.inputs)
    for have, want in zip(got, model.reference(feed), strict=True):
        limit = 2e-3 * float(np.abs(want).max())
        np.testing.assert_allclose(have, want, rtol=0, atol=limit)


def _run(source: Any, feed: list[Array]) -> list[Array]:
    module, context = scheduled(frontend.load(source, shapes={}, fallback=False), ON_GPU)
    return execute(module, feed, context.target, 0)


@needs_compiler
def test_sums_and_functions_are_computed_in_float32() -> None:
    """4096 ones are more than float16 can count to; a GELU is rounded once."""
    nodes = [
        node("ReduceSum", "x axis", "s", keepdims=0),
        node("Gelu", "v", "g"),
        node("Mul", "g g", "h"),
    ]
    shapes = [("x", HALF, (2, 4096)), ("v", HALF, (64,))]
    results = [("s", HALF, (2,)), ("h", HALF, (64,))]
    source = build(nodes, shapes, results, {"axis": np.array([1], "int64")})
    v = np.linspace(-4, 4, 64).astype("float16")
    total, squares = _run(source, [np.full((2, 4096), 1.0009765625, "float16"), v])
    np.testing.assert_array_equal(total, np.float16(4100.0))
    from math import erf

    exact = np.array([(0.5 * x * (1 + erf(x / 2**0.5))) for x in v.astype(float)])
    rounded = exact.astype("float16").astype(float) ** 2
    np.testing.assert_allclose(squares.astype(float), rounded, rtol=1.1e-3, atol=1e-7)


def _attention(kind: int, *, wide: bool) -> Any:
    """Scores of 16 bits with a mask of theirs; `wide` where they are cast for softmax."""
    nodes = [
        node("Transpose", "k", "kt", perm=[0, 1, 3, 2]),
        node("Mul", "q half", "qs"),
        node("Mul", "kt half", "ks"),
        node("MatMul", "qs ks", "s0"),
        node("Add", "s0 mask", "s1"),
    ]
    nodes += [node("Cast", "s1", "s2", to=FLOAT)] if wide else [node("Identity", "s1", "s2")]
    nodes += [node("Softmax", "s2", "p0", axis=-1)]
    nodes += [node("Cast", "p0", "p", to=kind)] if wide else [node("Identity", "p0", "p")]
    nodes += [node("MatMul", "p v", "y")]
    shape = (1, 2, 32, 16)
    scale = np.asarray(16**-0.25, _numpy(kind))
    inputs = [(name, kind, shape) for name in "qkv"] + [("mask", kind, (1, 1, 32, 32))]
    return build(nodes, inputs, [("y", kind, shape)], {"half": scale})


@TYPES
@pytest.mark.parametrize("wide", [False, True])
def test_attention_of_16_bits_is_one_kernel(kind: int, wide: bool) -> None:
    kernels = records(_attention(kind, wide=wide), ON_GPU)
    assert {each.rule for each in kernels if each.flops > 2**16} == {"cuda-attention"}
    assert not [each.kernel for each in kernels if "softmax" in each.kernel]


@needs_compiler
@pytest.mark.parametrize("wide", [False, True])
def test_attention_of_16_bits_is_rounded_no_worse_than_its_weights(wide: bool) -> None:
    draw = np.random.default_rng(3)
    q, k, v = (draw.standard_normal((1, 2, 32, 16)).astype("float16") * 2 for _ in range(3))
    mask = np.where(draw.random((1, 1, 32, 32)) < 0.2, -np.inf, 0).astype("float16")
    (got,) = _run(_attention(HALF, wide=wide), [q, k, v, mask])
    scores = q.astype(float) @ k.astype(float).transpose(0, 1, 3, 2) / 4 + mask
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    right = weights / weights.sum(-1, keepdims=True) @ v.astype(float)
    np.testing.assert_allclose(got.astype(float), right, rtol=0, atol=2e-3 * np.abs(right).max())


def test_products_that_a_model_wants_in_float32_stay_so() -> None:
    nodes = [
        node("Cast", "x", "a", to=FLOAT),
        node("Cast", "w", "b", to=FLOAT),
        node("MatMul", "a b", "y"),
    ]
    given = [("x", HALF, (64, 64)), ("w", HALF, (64, 64))]
    kernels = records(build(nodes, given, [("y", FLOAT, (64, 64))]), ON_GPU)
    assert "cuda-matmul" in {each.rule for each in kernels}


def test_norms_in_pieces_of_16_bits_are_one_kernel() -> None:
    nodes = [
        node("ReduceMean", "x axis", "m", keepdims=1),
        node("Sub", "x m", "d"),
        node("Mul", "d d", "d2"),
        node("ReduceMean", "d2 axis", "var", keepdims=1),
        node("Add", "var tiny", "biased"),
        node("Sqrt", "biased", "root"),
        node("Div", "d root", "n"),
        node("Mul", "n gain", "y"),
    ]
    weights = {
        "axis": np.array([-1], "int64"),
        "tiny": np.asarray(1e-4, "float16"),
        "gain": np.linspace(0.5, 2, 32).astype("float16"),
    }
    source = build(nodes, [("x", HALF, (8, 32))], [("y", HALF, (8, 32))], weights)
    assert [each.rule for each in records(source, ON_GPU)] == ["cuda-layer-norm"]


def test_a_cpu_widens_products_as_before() -> None:
    source = build(
        [node("MatMul", "x w", "y")],
        [("x", HALF, (8, 16))],
        [("y", HALF, (8, 4))],
        {"w": np.ones((16, 4), "float16")},
    )
    module: Any = frontend.load(source, shapes={}, fallback=False).module
    here = Context(target.parse("cpu", threads=1))
    module = pipeline.run(pipeline.parse("widen-types"), module, here)
    names = [operator(each.value) for each in bindings_of(module["main"])]
    assert names == ["astype", "astype", "matmul", "astype"]
