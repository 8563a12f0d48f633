"""Products with weights of 8 and 4 bits on GPUs, unpacked by the threads that multiply them."""

import shutil
from dataclasses import replace
from itertools import product
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from cuda_emulator import needs_compiler, run, source_of
from cuda_kernels import AT_POINTS, close, gpu, sample
from cuda_models import answers, records
from onnx_models import FLOAT, build, node

from hybridc.compiler.configuration import plans
from hybridc.compiler.cuda import resources, toolchain
from hybridc.compiler.interfaces import NotApplicable
from hybridc.compiler.kernels.kernel_cost import MULTIPLY
from hybridc.compiler.kernels.products import weight_only
from hybridc.compiler.model import Array
from hybridc.compiler.quantization import group_quantization
from hybridc.schedules.cuda_matmul import CudaMatmul
from hybridc.schedules.cuda_tensor_matmul import CudaTensorMatmul
from hybridc.schedules.cuda_thin_matmul import CudaThinMatmul
from hybridc.schedules.cuda_wgmma_matmul import CudaWgmmaMatmul

pytestmark = needs_compiler
DRAW = np.random.default_rng(3)
assert ml_dtypes.bfloat16  # makes numpy know the name
HALVES = ["float16", "bfloat16"]
# Each architecture, type and number of bits; the other combinations are slow.
SPILLS = ((8, "float32", "sm_75"), (4, "bfloat16", "sm_80"), (8, "float16", "sm_90a"))


def made(
    rows: tuple[int, ...], inputs: int, columns: int, bits: int, group: int, dtype: str = "float32"
) -> tuple[Any, list[Array], Array]:
    """The kernel as `quantize-weights` makes it, its arguments, and what it computes.

    Of rows of 16 bits tiles have weights that are rounded, all else has integers and scales.
    """
    weight = DRAW.standard_normal((inputs, columns)).astype("float32")
    multiple = weight_only.GPU_WIDTH
    quantized = group_quantization.quantize(weight, bits, group, multiple=multiple)
    integers, scales = group_quantization.packed(quantized, multiple)
    func = weight_only.dense(
        (*rows, inputs), integers, scales, columns, bits, padded=False, dtype=dtype
    )
    x = DRAW.standard_normal((*rows, inputs)).astype(dtype)
    tiles = np.prod(rows) >= 8
    scaled = replace(quantized, scales=quantized.scales.astype(dtype).astype("float32"))
    weights = scaled.dequantized().astype(dtype) if tiles else quantized.dequantized()
    right = x.astype("float64") @ weights.astype("float64")
    return func, [x, integers, scales, np.zeros((*rows, columns), "float32")], right


@AT_POINTS
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize(
    ("rows", "inputs", "columns", "group"),
    [
        ((1,), 256, 64, 32),
        ((1, 1), 100, 37, 128),  # neither whole panels of columns, nor whole pieces of the depth
        ((2, 1), 50, 9, 16),
        ((3,), 384, 130, 128),
        ((7,), 96, 72, 32),
        ((1,), 8, 8, 8),
        ((1,), 1030, 21, 64),
    ],
)
def test_few_rows_are_multiplied_by_what_threads_unpack(
    bits: int, rows: tuple[int, ...], inputs: int, columns: int, group: int, points: int
) -> None:
    func, arrays, right = made(rows, inputs, columns, bits, group)
    rule, device = CudaThinMatmul(), gpu()
    match: Any = rule.match(func, device)
    assert match.weights.bits == bits
    for point in sample(rule.knobs(match), rule.default(match, device), points):
        scheduled = rule.schedule(match, rule.canonical(match, point)).mod["main"]
        close(run(scheduled, arrays, device)[-1], right, 1e-5, str(point))


@AT_POINTS
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize(
    ("rows", "inputs", "columns", "group"),
    [
        ((1,), 256, 64, 32),
        ((1, 2), 90, 37, 32),  # as above, and rows that are no multiples of 16 bytes
        ((7,), 96, 130, 32),
        ((3,), 2048, 24, 128),
    ],
)
def test_few_rows_of_16_bits_are_multiplied_on_tensor_cores(
    bits: int, rows: tuple[int, ...], inputs: int, columns: int, group: int, dtype: str, points: int
) -> None:
    func, arrays, right = made(rows, inputs, columns, bits, group, dtype)
    rule, device = CudaThinMatmul(), gpu()
    match: Any = rule.match(func, device)
    assert match.tensor
    for point in sample(rule.knobs(match), rule.default(match, device), points):
        canonical = rule.canonical(match, point)
        assert rule.canonical(match, canonical) == canonical
        scheduled = rule.schedule(match, canonical).mod["main"]
        close(run(scheduled, arrays, device)[-1], right, 1e-5, str(point))


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize(
    ("arch", "dtype", "group"), [("sm_75", "bfloat16", 32), ("sm_90a", "float16", 24)]
)
def test_few_rows_of_16_bits_are_multiplied_by_cuda_cores_where_these_do_not_fit(
    bits: int, arch: str, dtype: str, group: int
) -> None:
    """Where there is no instruction for the type, or lanes would have several groups at once."""
    func, arrays, right = made((2,), 96, 37, bits, group, dtype)
    rule, device = CudaThinMatmul(), gpu(arch)
    match: Any = rule.match(func, device)
    assert not match.tensor
    scheduled = rule.schedule(match, rule.default(match, device)).mod["main"]
    close(run(scheduled, arrays, device)[-1], right, 1e-5, arch)


@AT_POINTS
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize(("rows", "inputs", "columns"), [((2, 20), 100, 37), ((70,), 300, 66)])
def test_many_rows_of_16_bits_are_multiplied_by_tiles_that_are_unpacked(
    bits: int, rows: tuple[int, ...], inputs: int, columns: int, dtype: str, points: int
) -> None:
    func, arrays, right = made(rows, inputs, columns, bits, 32, dtype)
    for rule, device in ((CudaTensorMatmul(), gpu("sm_80")), (CudaWgmmaMatmul(), gpu())):
        match: Any = rule.match(func, device)
        if refused(match):
            assert rows == (2, 20), "too few for warpgroups"
            continue
        assert [side.how for side in match.sources][1] == "packed"
        for point in sample(rule.knobs(match), rule.default(match, device), points):
            scheduled = rule.schedule(match, rule.canonical(match, point)).mod["main"]
            close(run(scheduled, arrays, device)[-1], right, 1e-5, f"{rule}, {point}")


@AT_POINTS
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize(
    ("rows", "inputs", "columns"), [((9,), 64, 40), ((2, 20), 100, 37), ((70,), 50, 66)]
)
def test_many_rows_are_multiplied_by_tiles_that_are_unpacked(
    bits: int, rows: tuple[int, ...], inputs: int, columns: int, points: int
) -> None:
    func, arrays, right = made(rows, inputs, columns, bits, 32)
    tensor = func.with_attr(MULTIPLY, "tf32")
    for rule, each, device, share in (
        (CudaMatmul(), func, gpu("sm_75"), 1e-5),
        (CudaTensorMatmul(), tensor, gpu("sm_80"), 2e-3),
    ):
        match: Any = rule.match(each, device)
        assert [side.how for side in match.sources][1] == "packed"
        for point in sample(rule.knobs(match), rule.default(match, device), points):
            scheduled = rule.schedule(match, rule.canonical(match, point)).mod["main"]
            close(run(scheduled, arrays, device)[-1], right, share, f"{rule}, {point}")


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not installed")
@pytest.mark.parametrize(
    ("bits", "dtype", "arch"),
    [
        pytest.param(*how, marks=() if how in SPILLS else pytest.mark.slow)
        for how in product([8, 4], ["float32", *HALVES], ["sm_75", "sm_80", "sm_90a"])
        if how[1:] != ("bfloat16", "sm_75")  # it has no tensor cores for bfloat16
    ],
)
def test_no_default_spills_registers(bits: int, dtype: str, arch: str) -> None:
    """Of one row, of seven, whose sums take the most, and of many, which are in tiles."""
    device = gpu(arch)
    for rows in (1, 7, 128, 2048):
        func, _, _ = made((rows,), 768, 3072, bits, 32, dtype)
        tf32 = dtype == "float32" and rows > 7 and arch != "sm_75"
        func = func.with_attr(MULTIPLY, "tf32") if tf32 else func
        rules: tuple[Any, ...] = (CudaThinMatmul(), CudaWgmmaMatmul(), CudaTensorMatmul())
        rule = next(r for r in (*rules, CudaMatmul()) if not refused(r.match(func, device)))
        match: Any = rule.match(func, device)
        source, _ = source_of(rule.schedule(match, rule.default(match, device)).mod["main"], device)
        log = toolchain.find().compile(source, arch).log
        assert all(each.spilled == 0 for each in resources.read_log(log).values())
        assert "serialized" not in log, "products wait for what goes on beside them"


def refused(match: Any) -> bool:
    """Whether a rule does not take a kernel."""
    return isinstance(match, NotApplicable)


def perceptron(rows: int, weights: dict[str, Array]) -> Any:
    """Two products, with a bias and a ReLU behind the first, and columns that fill no panel."""
    nodes = [
        node("MatMul", "x w", "h"),
        node("Add", "h b", "g"),
        node("Relu", "g", "r"),
        node("MatMul", "r v", "y"),
    ]
    return build(nodes, [("x", FLOAT, (rows, 96))], [("y", FLOAT, (rows, 21))], weights)


def drawn(scale: float = 1.0) -> dict[str, Array]:
    """Its weights."""
    shapes = {"w": (96, 64), "v": (64, 21), "b": (64,)}
    return {
        name: (scale * DRAW.standard_normal(shape)).astype("f4") for name, shape in shapes.items()
    }


def held(weights: dict[str, Array], bits: int) -> dict[str, Array]:
    """The weights that the integers stand for."""
    group, search = (128, False) if bits == 8 else (32, True)
    rounded = {
        name: group_quantization.quantize(
            weights[name], bits, group, search, weight_only.GPU_WIDTH
        ).dequantized()
        for name in ("w", "v")
    }
    return {**weights, **rounded}


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize(
    ("rows", "rule", "share"), [(1, "cuda-thin-matmul", 1e-5), (12, "cuda-tensor-matmul", 2e-3)]
)
def test_a_model_reads_packed_weights(rows: int, rule: str, share: float, bits: int) -> None:
    weights = drawn()
    options = plans.Options(target="sm_90a", dtype=f"int{bits}-weights")
    assert {each.rule for each in records(perceptron(rows, weights), options)} == {rule}
    got, _ = answers(perceptron(rows, weights), options)
    _, right = answers(perceptron(rows, held(weights, bits)), plans.Options(target="sm_90a"))
    close(np.asarray(got[0]), np.asarray(right[0]), share, f"{bits} bits")


def narrowed(bits: int, dtype: str) -> plans.Options:
    """Packed weights, and 16 bits for all else that is multiplied."""
    return plans.Options(target="sm_90a", dtype=f"{dtype}+int{bits}-weights")


@pytest.mark.parametrize(
    ("bits", "dtype"),
    [
        (8, "fp16"),
        (4, "bf16"),
        pytest.param(8, "bf16", marks=pytest.mark.slow),
        pytest.param(4, "fp16", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize(
    ("rows", "rules"),
    [(1, {"cuda-thin-matmul"}), (64, {"cuda-wgmma-matmul", "cuda-tensor-matmul"})],
)
def test_a_model_of_16_bits_reads_packed_weights(
    rows: int, rules: set[str], bits: int, dtype: str
) -> None:
    weights, options = drawn(), narrowed(bits, dtype)
    kernels = records(perceptron(rows, weights), options)
    products = {each.rule for each in kernels if each.precision == dtype}
    assert products == rules
    got, _ = answers(perceptron(rows, weights), options)
    _, right = answers(perceptron(rows, held(weights, bits)), plans.Options(target="sm_90a"))
    share = 2e-3 if dtype == "fp16" else 1.5e-2
    close(np.asarray(got[0]), np.asarray(right[0]), share, f"{bits} bits by {dtype}")


def test_weights_that_float16_cannot_hold_stay_as_they_are() -> None:
    kernels = records(perceptron(1, drawn(1e-5)), narrowed(4, "fp16"))
    assert {each.precision for each in kernels if "dense" in each.kernel} == {"tf32"}
