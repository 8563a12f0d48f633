"""Products of a graph: which there are, and samples of what they multiply."""

from typing import Any

import numpy as np
import pytest
import torch
from tvm import relax

from hybridc.compiler.model import Array
from hybridc.compiler.quantization import products
from hybridc.passes import _rounding, _smooth_quant

DRAW = np.random.default_rng(2)


def floats(*shape: int) -> Array:
    return DRAW.standard_normal(shape).astype(np.float32)


def module_of(shape: tuple[int, ...], make: Any) -> Any:
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType(shape, "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            result = builder.emit_output(builder.emit(make(x)))
        builder.emit_func_output(result)
    return builder.finalize()


CONVOLUTIONS = [
    ((1, 3, 7, 9), (4, 3, 3, 3), {}),
    ((2, 4, 8, 6), (6, 4, 1, 1), {"strides": (2, 1)}),
    ((1, 4, 9, 9), (8, 2, 3, 3), {"groups": 2, "padding": (1, 0, 2, 1)}),
    ((2, 6, 7, 7), (6, 1, 3, 3), {"groups": 6, "padding": (1, 1, 1, 1), "strides": (2, 2)}),
    ((1, 2, 11, 8), (3, 2, 3, 2), {"dilation": (2, 3), "padding": (2, 1, 2, 1)}),
]


@pytest.mark.parametrize(("shape", "weight", "options"), CONVOLUTIONS)
def test_rows_of_a_convolution_give_its_outputs(
    shape: tuple[int, ...], weight: tuple[int, ...], options: dict[str, Any]
) -> None:
    x, w = floats(*shape), floats(*weight)
    module = module_of(shape, lambda x: relax.op.nn.conv2d(x, relax.const(w), **options))
    (product,) = products.find(module["main"])
    assert product.name == "conv2d-0"
    top, left, bottom, right = options.get("padding", (0, 0, 0, 0))
    wanted = torch.nn.functional.conv2d(
        torch.nn.functional.pad(torch.from_numpy(x), (left, right, top, bottom)),
        torch.from_numpy(w),
        stride=options.get("strides", 1),
        dilation=options.get("dilation", 1),
        groups=options.get("groups", 1),
    ).numpy()
    assert product.macs == wanted.size * w[0].size
    places = wanted.transpose(0, 2, 3, 1).reshape(-1, weight[0])
    rows = product.rows(x, 50, np.random.default_rng(0))
    found = _rounding.outputs(product, rows, w)
    distance = np.abs(found[:, np.newaxis] - places[np.newaxis]).max(-1).min(1)
    assert distance.max() < 1e-4


def test_rows_of_a_matrix_product_give_its_outputs() -> None:
    x, w = floats(2, 5, 7), floats(7, 3)
    module = module_of(x.shape, lambda x: relax.op.matmul(x, relax.const(w)))
    (product,) = products.find(module["main"])
    rows = product.rows(x, 20, np.random.default_rng(0))
    found = _rounding.outputs(product, rows, w)
    places = (x @ w).reshape(-1, 3)
    assert np.abs(found[:, np.newaxis] - places[np.newaxis]).max(-1).min(1).max() < 1e-5


@pytest.mark.parametrize(
    "make",
    [
        lambda x: relax.op.matmul(relax.const(floats(3, 4)), x),
        lambda x: relax.op.matmul(x, relax.op.permute_dims(x)),
        lambda x: relax.op.matmul(x, relax.const(np.full((6, 2), np.nan, np.float32))),
        lambda x: relax.op.matmul(x, relax.const(floats(5, 6, 2))),
        lambda x: relax.op.add(x, x),
    ],
)
def test_what_8_bits_cannot_compute_is_no_product(make: Any) -> None:
    assert not products.find(module_of((4, 6), make)["main"])


def test_factors_move_no_product() -> None:
    """Dividing rows and multiplying weights by the factors gives the same numbers."""
    x, w = floats(50, 16) * np.linspace(0.01, 30, 16, dtype=np.float32), floats(16, 8)
    x[:, 3] = 0
    module = module_of(x.shape, lambda x: relax.op.matmul(x, relax.const(w)))
    (product,) = products.find(module["main"])
    factors = _smooth_quant.factored(np.abs(x).max(0), (product,), 0.5)
    np.testing.assert_allclose((x / factors) @ (w * factors[:, None]), x @ w, rtol=1e-3, atol=1e-3)
    largest = np.abs(x / factors).max(0)
    assert np.delete(largest, 3).std() < 0.5 * np.delete(np.abs(x).max(0), 3).std()


def test_shifts_are_what_8_bits_move_the_mean_by() -> None:
    draw = np.random.default_rng(1)
    x = draw.uniform(0, 4, (4000, 12)).astype(np.float32)
    w = floats(12, 5)
    module = module_of(x.shape, lambda x: relax.op.matmul(x, relax.const(w)))
    (product,) = products.find(module["main"])
    storage = _rounding.Storage(4 / 255, 0)
    stored, scale = _rounding.weights(product, None)
    wanted = (storage.stored(x) @ (stored * scale) - x @ w).mean(0)
    rows = product.rows(x, 2000, draw)
    found = _rounding.shifts(product, rows, storage)
    kept = found != 0
    assert kept.any()
    np.testing.assert_allclose(found[kept], wanted[kept], atol=2e-3)
    assert np.abs(wanted[~kept]).max(initial=0) < 2e-3
