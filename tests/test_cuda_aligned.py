"""Weights that `align-weights` laid out for GPUs: who reads them, how, and what comes of it."""

from typing import Any

import numpy as np
import pytest
from cuda_emulator import needs_compiler
from cuda_kernels import check, close, gpu
from cuda_models import answers, records
from onnx_models import FLOAT, build, node

from hybridc.compiler.configuration import plans
from hybridc.compiler.kernels.products import turned_weights
from hybridc.schedules.cuda_tensor_matmul import CudaTensorMatmul
from hybridc.schedules.cuda_thin_matmul import CudaThinMatmul

TYPES = {"float16": "float32", "uint8": "int32"}


def turned(rows: int, depth: int, columns: int, dtype: str) -> Any:
    """The product with a matrix that was turned."""
    weight = np.empty((columns, depth), {"uint8": "int8"}.get(dtype, dtype))
    return turned_weights.dense((rows, depth), weight, dtype, TYPES[dtype])


@needs_compiler
@pytest.mark.parametrize("dtype", TYPES)
def test_turned_matrices_are_read_along_the_depth(dtype: str) -> None:
    device = gpu()
    few, many = (turned(rows, 64, 51, dtype) for rows in (2, 20))
    assert check(CudaThinMatmul(), few, device, points=1)
    match: Any = CudaTensorMatmul().match(many, device)
    assert {(side.how, side.piece) for side in match.sources} == {("depth", 16)}
    assert check(CudaTensorMatmul(), many, device, points=1)


@pytest.mark.parametrize("dtype", TYPES)
def test_threads_side_by_side_read_lines_of_a_turned_matrix(dtype: str) -> None:
    """GPT-2's last product: eight threads read 128 bytes of a row, and so four rows a warp."""
    rule, device = CudaThinMatmul(), gpu()
    match: Any = rule.match(turned(1, 768, 50257, dtype), device)
    assert match.along == "depth"
    assert rule.default(match, device)["lanes"] <= 4


@needs_compiler
def test_a_model_of_three_channels_and_odd_columns() -> None:
    """A convolution of an image, and a product whose rows begin anywhere."""
    draw = np.random.default_rng(4)
    shapes = {"w": (16, 3, 3, 3), "v": (64, 13)}
    weights = {name: draw.standard_normal(shape).astype("f4") for name, shape in shapes.items()}
    nodes = [
        node("Conv", "x w", "h", kernel_shape=[3, 3], strides=[2, 2]),
        node("Flatten", "h", "f"),
        node("MatMul", "f v", "y"),
    ]

    def model() -> Any:
        return build(nodes, [("x", FLOAT, (1, 3, 5, 5))], [("y", FLOAT, (1, 13))], weights)

    options = plans.Options(target="sm_80", dtype="fp16")
    rules = [record.rule for record in records(model(), options)]
    assert "cuda-thin-matmul" in rules
    got, _ = answers(model(), options)
    right, _ = answers(model(), plans.Options(target="sm_80"))
    close(np.asarray(got[0]), np.asarray(right[0]), 2e-3, "fp16")
