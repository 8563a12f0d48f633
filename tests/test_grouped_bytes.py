"""Products of weights of few bits with activations that are rounded to bytes, group by group."""

from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx_models import noise
from test_microsoft_decoders import one, packed
from tvm import tirx

import hybridc
from hybridc.compiler import pipeline, strips, target
from hybridc.compiler.building.build import compile_kernel
from hybridc.compiler.frontend import load
from hybridc.compiler.interfaces import Context
from hybridc.compiler.ir import roundable
from hybridc.compiler.ir.rewrite import calls
from hybridc.compiler.kernels import bfloat16_lowering
from hybridc.compiler.kernels.products import grouped_bytes
from hybridc.compiler.quantization.group_quantization import in_panels
from hybridc.compiler.runtime.tensors import to_numpy, to_tensor
from hybridc.compiler.target import Target
from hybridc.schedules.grouped_bytes import GroupedBytes

HOST = target.parse("cpu", threads=2)
AVX2, AVX512 = (target.parse(name, threads=2) for name in ("avx2", "avx512"))
RULE = GroupedBytes()


def rounded(x: Any, size: int) -> Any:
    """Activations as ONNX Runtime rounds them: a step for each group, 127 of them the largest."""
    groups = x.reshape(*x.shape[:-1], -1, size).astype(np.float64)
    steps = np.abs(groups).max(-1, keepdims=True) / 127
    whole = np.divide(groups, steps, out=np.zeros_like(groups), where=steps > 0)
    return (np.rint(whole) * steps).reshape(x.shape)


def scheduled(func: Any, cpu: Target) -> Any:
    match: Any = RULE.match(func, cpu)
    return RULE.schedule(match, RULE.default(match, cpu)).mod["main"]


def made(func: Any, cpu: Target) -> Any:
    """The kernel, of its strips where sizes are open."""
    cuts = strips.cuts(func)
    parts = [strips.Scheduled(each, scheduled(each.func, cpu)) for each in cuts]
    whole = strips.join(func, parts, cpu.threads) if parts else scheduled(func, cpu)
    return compile_kernel(bfloat16_lowering.lowered(whole, cpu), cpu)["main"]


@pytest.mark.parametrize("cpu", [HOST, AVX2, AVX512], ids=["host", "avx2", "avx512"])
@pytest.mark.parametrize(
    ("bits", "size", "columns", "rows"),
    [(4, 32, 70, None), (8, 16, 96, 1), (8, 16, 96, None), (4, 64, 40, 6)],
)
def test_products_are_exact_but_for_the_rounding(
    cpu: Target, bits: int, size: int, columns: int, rows: int | None
) -> None:
    if not cpu.features <= HOST.features or not grouped_bytes.fits(size, bits, cpu):
        pytest.skip("no products of bytes here")
    rng, depth, width = np.random.default_rng(0), 2 * size, cpu.lanes() * 2
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1)
    q = rng.integers(low, high, (depth, columns)).astype(np.int8)
    s = rng.uniform(0.01, 0.1, (2, columns)).astype(np.float32)
    z = rng.integers(low, high, s.shape).astype(np.int8)
    wide = (q.reshape(2, size, -1) - z[:, None].astype(np.float64)) * s[:, None]
    held = [grouped_bytes.packed(q, bits, width), in_panels(s, width), in_panels(z, width)]
    lead: tuple[Any, ...] = (tirx.Var("b", "int64"), tirx.Var("s", "int64"))
    shape = (*(lead if rows is None else (2, rows)), depth)
    kernel = made(grouped_bytes.dense(shape, held[0], held[1], columns, bits, held[2]), cpu)
    for count in (1, 3, 7, 20, 70) if rows is None else (rows,):
        x = rng.standard_normal((2, count, depth)).astype(np.float32)
        x[0, 0, :size] = 0
        out = to_tensor(np.full((2, count, columns), np.nan, np.float32))
        kernel(*map(to_tensor, (x, *held)), out)
        wanted = rounded(x, size) @ wide.reshape(depth, columns)
        got = to_numpy(out, np.dtype(np.float32))
        # A value between two steps may be rounded either way, in float32 and in float64.
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=2e-3 * 2**bits / 16)


def product(accuracy: int, rows: int, bits: int = 4) -> tuple[Any, Any, Any]:
    """A model of one product, what it is given, and the answer in float64."""
    rng, depth, columns, size = np.random.default_rng(1), 256, 96, 32
    integers = rng.integers(0, 2**bits, (columns, depth // size, size))
    scales = rng.uniform(0.1, 1, integers.shape[:2]).astype(np.float32)
    options = {"bits": bits, "block_size": size, "K": depth, "N": columns}
    fed = {"x": noise(rows, depth)}
    constants = {"b": packed(integers, bits), "s": scales}
    names = ["x", "b", "s"]
    model = one("MatMulNBits", names, fed, constants, "y", **options, accuracy_level=accuracy)
    weights = (integers - 2.0 ** (bits - 1)) * scales[..., None]
    return model, fed, fed["x"].astype(np.float64) @ weights.reshape(columns, depth).T


@pytest.mark.skipif(not HOST.multiplies_bytes, reason="no products of bytes here")
@pytest.mark.parametrize("bits", [4, 8])
def test_errors_are_those_of_onnx_runtime(bits: int) -> None:
    """Only where the model allows it."""
    model, fed, exact = product(4, 5, bits)
    wide = hybridc.compile(product(0, 5, bits)[0], verify="off")
    narrow = hybridc.compile(model)
    assert any("rounded to 8 bits" in note for note in narrow.report["notes"])
    assert not any("rounded to 8 bits" in note for note in wide.report["notes"])
    (got,), (plain,) = (hybridc.InferenceSession(each).run(None, fed) for each in (narrow, wide))
    (right,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, fed)
    ours, theirs, least = (np.sqrt(np.mean((y - exact) ** 2)) for y in (got, right, plain))
    assert ours <= 1.05 * theirs
    assert least < ours / 100


@pytest.mark.parametrize("options", [{"target": "avx2"}, {"pipeline": "minimal"}])
def test_nothing_is_rounded_without_products_of_bytes(options: Any) -> None:
    model, fed, exact = product(4, 2, 8)
    made = hybridc.compile(model, verify="off", **options)
    (got,) = hybridc.InferenceSession(made).run(None, fed)
    np.testing.assert_allclose(got, exact, rtol=1e-3, atol=1e-3)


def test_what_no_kernel_rounds_is_not_marked() -> None:
    """Zero points that are no integers leave the product to others."""
    names = ["x", "b", "s", "z"]
    integers = np.random.default_rng(0).integers(0, 16, (24, 2, 32))
    constants = {"b": packed(integers, 4), "s": np.ones((24, 2), np.float32)}
    constants["z"] = np.full((24, 2), 7.5, np.float32)
    options = {"bits": 4, "block_size": 32, "K": 64, "N": 24, "accuracy_level": 4}
    model = load(one("MatMulNBits", names, {"x": noise(3, 64)}, constants, "y", **options))
    assert calls(model.module, roundable.OPERATOR)
    made = pipeline.run(pipeline.parse("block-weights"), model.module, Context(HOST))
    assert not calls(made, roundable.OPERATOR)
