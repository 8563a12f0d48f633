"""Weights of 16 bits where no instruction multiplies them faster than fp32: which are widened, and
what their kernels compute, against numpy."""

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from test_lower_precisions import block
from tvm import relax

from hybridc.compiler import driver, pipeline, target
from hybridc.compiler.assurance.contract import Contract
from hybridc.compiler.assurance.reduced import REDUCED
from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.errors import WrongAnswerError
from hybridc.compiler.interfaces import Context
from hybridc.compiler.ir import evaluate
from hybridc.compiler.model import Array
from hybridc.compiler.quantization import compression
from hybridc.compiler.target import Target

pytestmark = pytest.mark.usefixtures("hasty")

op: Any = relax.op

TYPES = {"bfloat16": np.dtype(ml_dtypes.bfloat16), "float16": np.dtype(np.float16)}
# Pairs of bfloat16 take half the time of fp32, and twice as long.
FAST, SLOW = (f'{{"kind": "llvm", "mcpu": "{name}"}}' for name in ("znver4", "sapphirerapids"))
EACH_TYPE = pytest.mark.parametrize("dtype", TYPES)
LAST = {"data_layout": "NHWC", "kernel_layout": "OHWI"}
Build = Callable[[Any, Any], Any]


def drawn(dtype: str, *shape: int) -> Array:
    """Numbers of a type that sums of them can be told from others."""
    draw = np.random.default_rng(len(shape))
    return draw.standard_normal(shape).astype(TYPES[dtype])


def packed(
    build: Build, x: tuple[Any, ...], weight: Array, cpu: Target, **options: bool
) -> tuple[Any, Context]:
    """The module behind `pack-weights` of an operator on x and constant weights."""
    builder, dtype = relax.BlockBuilder(), weight.dtype.name
    data = relax.Var("x", relax.TensorType(x, dtype))
    given = "".join(f"{name.replace('_', '-')}={str(on).lower()} " for name, on in options.items())
    with builder.function("main", [data]):
        with builder.dataflow():
            constant = relax.const(weight, dtype)
            result = builder.emit_output(builder.normalize(build(data, constant)))
        builder.emit_func_output(result)
    context = Context(cpu, pipeline.rules())
    passes = pipeline.parse(f"pack-weights{{{given.strip()}}}" if given else "pack-weights")
    return pipeline.run(passes, builder.finalize(), context), context


def constants(module: Any) -> list[Array]:
    """The constants of a module's graph."""
    found: list[Array] = []
    for binding in module["main"].body.blocks[0].bindings:
        found += [e.value.numpy() for e in binding.value.args[1].fields if hasattr(e, "value")]
    return found


def computed(
    build: Build, x: Array, weight: Array, cpu: Target, **options: bool
) -> tuple[Array, Context]:
    """What the scheduled kernels give."""
    module, context = packed(build, x.shape, weight, cpu, **options)
    module = pipeline.run(pipeline.parse("legalize,fuse,schedule"), module, context)
    return evaluate.evaluate(module, [x])[0], context


def matmul(x: Any, w: Any) -> Any:
    return op.matmul(x, w, out_dtype="float32")


def conv2d(**options: Any) -> Build:
    return lambda x, w: op.nn.conv2d(x, w, **options, **LAST, out_dtype="float32")


def convolved(x: Array, w: Array, padding: int, stride: int = 1, groups: int = 1) -> Array:
    """A convolution channels last, in float64."""
    pad = [(0, 0), (padding, padding), (padding, padding), (0, 0)]
    wide = np.pad(x.astype(np.float64), pad)
    windows = sliding_window_view(wide, w.shape[1:3], axis=(1, 2))[:, ::stride, ::stride]
    parts = zip(np.split(windows, groups, 3), np.split(w, groups), strict=True)
    made = [np.einsum("nhvcij,oijc->nhvo", d, f.astype(np.float64)) for d, f in parts]
    return np.concatenate(made, -1)


def near(got: Array, wanted: Array) -> None:
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=2e-5 * np.abs(wanted).max())


@pytest.mark.parametrize(
    ("cpu", "rate", "taken"),
    [
        (FAST, 2.0, 2.0),
        (SLOW, 0.5, 1.0),
        ("avx512", 1.0, 1.0),
        ("avx2", 1.0, 1.0),
        ('{"kind": "llvm", "mcpu": "sapphirerapids", "machine": {"bf16": 2.0}}', 2.0, 2.0),
        ('{"kind": "llvm", "mcpu": "znver4", "machine": {"bf16": 1.0}}', 1.0, 1.0),
        ('{"kind": "llvm", "mcpu": "x86-64-v4", "machine": {"bf16": 2.0}}', 1.0, 1.0),
    ],
)
def test_the_name_of_a_cpu_or_a_probe_tells_whether_pairs_pay(
    cpu: str, rate: float, taken: float
) -> None:
    known = target.parse(cpu)
    assert known.rate("bf16") == rate
    assert known.faster("bf16") == taken
    assert known.faster("fp16") == 1.0


@EACH_TYPE
@pytest.mark.parametrize(
    ("cpu", "rows", "in_kernel", "wide"),
    [
        (SLOW, (64,), False, True),
        (SLOW, (64,), True, False),
        (SLOW, ("n",), False, True),
        (SLOW, (1,), False, False),  # its weights come from memory
        ("avx2", (64,), False, True),
        ("avx2", (1,), False, False),
    ],
)
def test_weights_are_widened_unless_their_product_waits_for_them(
    dtype: str, cpu: str, rows: tuple[Any, ...], in_kernel: bool, wide: bool
) -> None:
    from tvm import tirx

    known = target.parse(cpu)
    size = 1024 if rows != (1,) else 4096
    x = tuple(tirx.Var(n, "int64") if isinstance(n, str) else n for n in (*rows, size))
    weight = drawn(dtype, size, size)
    module, context = packed(matmul, x, weight, known, in_kernel=in_kernel)
    (held,) = constants(module)
    assert held.dtype == (np.float32 if wide else TYPES[dtype])
    found = compression.of(context.compressed, held)
    assert (found is not None) == wide
    if found is not None:
        (numbers,) = found.tensors("w").values()
        assert numbers.dtype == TYPES[dtype]
        np.testing.assert_array_equal(found.constant(), held)


def test_pairs_that_pay_are_left_in_pairs() -> None:
    module, context = packed(matmul, (64, 96), drawn("bfloat16", 96, 80), target.parse(FAST))
    (held,) = constants(module)
    assert held.dtype == TYPES["bfloat16"]
    assert held.shape == (5, 48, 16, 2)
    assert not context.compressed


@EACH_TYPE
@pytest.mark.parametrize("in_kernel", [False, True])
@pytest.mark.parametrize("cpu", ["cpu", "avx2"])
@pytest.mark.parametrize(("rows", "depth", "columns"), [((2, 9), 33, 50), ((1,), 64, 7)])
def test_products(
    dtype: str, in_kernel: bool, cpu: str, rows: tuple[int, ...], depth: int, columns: int
) -> None:
    x, w = drawn(dtype, *rows, depth), drawn(dtype, depth, columns)
    got, _ = computed(matmul, x, w, target.parse(cpu), in_kernel=in_kernel)
    near(got, x.astype(np.float64) @ w.astype(np.float64))


@EACH_TYPE
def test_products_with_several_matrices(dtype: str) -> None:
    x, w = drawn(dtype, 3, 9, 21), drawn(dtype, 3, 21, 18)
    got, context = computed(matmul, x, w, target.parse("avx2"))
    near(got, x.astype(np.float64) @ w.astype(np.float64))
    assert context.compressed


@EACH_TYPE
@pytest.mark.parametrize("cpu", ["cpu", "avx2"])
@pytest.mark.parametrize(
    ("size", "weight", "padding", "stride", "groups"),
    [
        (9, (20, 3, 3, 5), 1, 1, 1),
        (11, (16, 5, 5, 3), 2, 2, 1),
        (7, (24, 1, 1, 17), 0, 1, 1),
        (9, (32, 3, 3, 8), 1, 1, 4),
        (9, (12, 3, 3, 1), 1, 1, 12),
        (14, (64, 3, 3, 64), 1, 1, 1),
    ],
)
def test_convolutions(
    dtype: str,
    cpu: str,
    size: int,
    weight: tuple[int, ...],
    padding: int,
    stride: int,
    groups: int,
) -> None:
    x, w = drawn(dtype, 1, size, size, weight[-1] * groups), drawn(dtype, *weight)
    build = conv2d(padding=padding, strides=stride, groups=groups)
    got, _ = computed(build, x, w, target.parse(cpu))
    near(got, convolved(x, w, padding, stride, groups))


@EACH_TYPE
def test_windows_of_many_channels_take_winograds_algorithm(dtype: str) -> None:
    x, w = drawn(dtype, 1, 14, 14, 128), drawn(dtype, 128, 3, 3, 128)
    got, context = computed(conv2d(padding=1), x, w, target.parse("avx2", 1))
    assert {record.rule for record in context.kernels} == {"winograd-conv2d"}
    (held,) = {id(e): e for e in context.compressed.values() if hasattr(e, "side")}.values()
    assert held.side > 0
    wanted = convolved(x, w, 1)
    np.testing.assert_allclose(got, wanted, atol=2e-5 * np.abs(wanted).max(), rtol=0)


@EACH_TYPE
@pytest.mark.parametrize("window", [1, 3])
def test_a_result_of_16_bits_is_rounded_once(dtype: str, window: int) -> None:
    x, w = drawn(dtype, 1, 14, 14, 64), drawn(dtype, 64, window, window, 64)
    pad = window // 2
    got, _ = computed(
        lambda a, b: op.nn.conv2d(a, b, padding=pad, **LAST), x, w, target.parse("avx2")
    )
    assert got.dtype == TYPES[dtype]
    wanted = convolved(x, w, pad)
    digits = 2.0**-8 if dtype == "bfloat16" else 2.0**-11
    allowed = 1.01 * digits * np.abs(wanted) + 2e-5 * np.abs(wanted).max()
    assert (np.abs(got.astype(np.float64) - wanted) <= allowed).all()


@EACH_TYPE
@pytest.mark.parametrize("cpu", ["cpu", "avx2"])
def test_products_of_two_activations(dtype: str, cpu: str) -> None:
    a, b = drawn(dtype, 2, 9, 21), drawn(dtype, 2, 21, 35)
    builder = relax.BlockBuilder()
    given = [relax.Var(n, relax.TensorType(x.shape, dtype)) for n, x in (("a", a), ("b", b))]
    with builder.function("main", given):
        with builder.dataflow():
            result = builder.emit_output(builder.normalize(matmul(*given)))
        builder.emit_func_output(result)
    context = Context(target.parse(cpu), pipeline.rules())
    module = pipeline.run(pipeline.parse("legalize,schedule"), builder.finalize(), context)
    assert {record.rule for record in context.kernels} == {"batch-matmul"}
    near(evaluate.evaluate(module, [a, b])[0], a.astype(np.float64) @ b.astype(np.float64))


def test_where_weights_alone_are_rounded_no_activation_is_beyond_float16() -> None:
    """Their sums are those of fp32."""
    made = driver.compile_source(block(scale=1e6), Options(dtype="fp16"))
    (agreement,) = made.report.agreement
    assert agreement["cosine"] > REDUCED["fp16"].cosine


def test_an_activation_beyond_float16_is_refused_by_name() -> None:
    large, small = block(scale=1e6), Contract(max_memory="1GB")
    with pytest.raises(WrongAnswerError, match="beyond 65504, where fp16 ends; dtype bf16"):
        driver.compile_source(large, Options(dtype="fp16", contract=small))
    assert driver.compile_source(large, Options(dtype="bf16", contract=small)).artifact
