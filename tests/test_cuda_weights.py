"""Products with weights of 8 and 4 bits on GPUs, unpacked by the threads that multiply them."""

import shutil
from typing import Any

import numpy as np
import pytest
from cuda_emulator import needs_compiler, run, source_of
from cuda_kernels import close, gpu, sample
from cuda_models import answers, records
from onnx_models import FLOAT, build, node

from hybridc.compiler.configuration import plans
from hybridc.compiler.cuda import resources, toolchain
from hybridc.compiler.kernels import weight_only
from hybridc.compiler.kernels.kernel_cost import MULTIPLY
from hybridc.compiler.model import Array
from hybridc.compiler.quantization import group_quantization
from hybridc.schedules.cuda_matmul import CudaMatmul
from hybridc.schedules.cuda_tensor_matmul import CudaTensorMatmul
from hybridc.schedules.cuda_thin_matmul import CudaThinMatmul

pytestmark = needs_compiler
DRAW = np.random.default_rng(3)


def made(
    rows: tuple[int, ...], inputs: int, columns: int, bits: int, group: int
) -> tuple[Any, list[Array], Array]:
    """The kernel as `quantize-weights` makes it, its arguments, and what it computes."""
    weight = DRAW.standard_normal((inputs, columns)).astype("float32")
    multiple = weight_only.GPU_WIDTH
    quantized = group_quantization.quantize(weight, bits, group, multiple=multiple)
    integers, scales = group_quantization.packed(quantized, multiple)
    func = weight_only.dense((*rows, inputs), integers, scales, columns, bits, padded=False)
    x = DRAW.standard_normal((*rows, inputs)).astype("float32")
    right = x.astype("float64") @ quantized.dequantized().astype("float64")
    return func, [x, integers, scales, np.zeros((*rows, columns), "float32")], right


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
    bits: int, rows: tuple[int, ...], inputs: int, columns: int, group: int
) -> None:
    func, arrays, right = made(rows, inputs, columns, bits, group)
    rule, device = CudaThinMatmul(), gpu()
    match: Any = rule.match(func, device)
    assert match.weights.bits == bits
    for point in sample(rule.knobs(match), rule.default(match, device), 2):
        scheduled = rule.schedule(match, rule.canonical(match, point)).mod["main"]
        close(run(scheduled, arrays, device)[-1], right, 1e-5, str(point))


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize(
    ("rows", "inputs", "columns"), [((9,), 64, 40), ((2, 20), 100, 37), ((70,), 50, 66)]
)
def test_many_rows_are_multiplied_by_tiles_that_are_unpacked(
    bits: int, rows: tuple[int, ...], inputs: int, columns: int
) -> None:
    func, arrays, right = made(rows, inputs, columns, bits, 32)
    tensor = func.with_attr(MULTIPLY, "tf32")
    for rule, each, device, share in (
        (CudaMatmul(), func, gpu("sm_75"), 1e-5),
        (CudaTensorMatmul(), tensor, gpu("sm_80"), 2e-3),
    ):
        match: Any = rule.match(each, device)
        assert [side.how for side in match.sources][1] == "packed"
        for point in sample(rule.knobs(match), rule.default(match, device), 1):
            scheduled = rule.schedule(match, rule.canonical(match, point)).mod["main"]
            close(run(scheduled, arrays, device)[-1], right, share, f"{rule}, {point}")


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not installed")
@pytest.mark.parametrize("arch", ["sm_75", "sm_80", "sm_90a"])
@pytest.mark.parametrize("bits", [8, 4])
def test_no_default_spills_registers(bits: int, arch: str) -> None:
    """Of one row, of seven, whose sums take the most, and of many, which are in tiles."""
    device = gpu(arch)
    many = CudaTensorMatmul() if "mma.tf32" in device.device.features else CudaMatmul()
    for rows, rule in ((1, CudaThinMatmul()), (7, CudaThinMatmul()), (128, many), (2048, many)):
        func, _, _ = made((rows,), 768, 3072, bits, 32)
        func = func.with_attr(MULTIPLY, "tf32") if rule is many else func
        match: Any = rule.match(func, device)
        source, _ = source_of(rule.schedule(match, rule.default(match, device)).mod["main"], device)
        usages = resources.read_log(toolchain.find().compile(source, arch).log)
        assert all(each.spilled == 0 for each in usages.values())


@pytest.mark.parametrize("dtype", ["int8-weights", "int4-weights"])
@pytest.mark.parametrize(
    ("rows", "rule", "share"), [(1, "cuda-thin-matmul", 1e-5), (12, "cuda-tensor-matmul", 2e-3)]
)
def test_a_model_reads_packed_weights(rows: int, rule: str, share: float, dtype: str) -> None:
    """With a bias and a ReLU behind the first product, and columns that fill no panel."""
    nodes = [
        node("MatMul", "x w", "h"),
        node("Add", "h b", "g"),
        node("Relu", "g", "r"),
        node("MatMul", "r v", "y"),
    ]
    shapes = {"w": (96, 64), "v": (64, 21), "b": (64,)}
    weights = {name: DRAW.standard_normal(shape).astype("f4") for name, shape in shapes.items()}
    bits, group = (8, 128) if dtype == "int8-weights" else (4, 32)

    def held(weight: Array) -> Array:
        """The weights that the integers stand for."""
        search, multiple = bits == 4, weight_only.GPU_WIDTH
        return group_quantization.quantize(weight, bits, group, search, multiple).dequantized()

    def source(weights: dict[str, Array]) -> Any:
        return build(nodes, [("x", FLOAT, (rows, 96))], [("y", FLOAT, (rows, 21))], weights)

    options = plans.Options(target="sm_90a", dtype=dtype)
    assert {record.rule for record in records(source(weights), options)} == {rule}
    got, _ = answers(source(weights), options)
    rounded = {**weights, "w": held(weights["w"]), "v": held(weights["v"])}
    _, right = answers(source(rounded), plans.Options(target="sm_90a"))
    close(np.asarray(got[0]), np.asarray(right[0]), share, dtype)
