"""Decompositions of fake quantisation, products of bytes and lengths give what torch gives."""

from typing import Any

import numpy as np
import pytest
from test_aten_decompositions import ours, same

from hybridc.compiler import driver
from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.frontends import torch_model
from hybridc.compiler.runtime.session import InferenceSession

torch = pytest.importorskip("torch")

aten = torch.ops.aten


@pytest.mark.parametrize("zero", [0, 3])
def test_numbers_rounded_as_integers(zero: int) -> None:
    x, scale = torch.randn(3, 5) * 4, torch.tensor([0.05, 0.25, 0.013])
    zeros = torch.full((3,), zero, dtype=torch.int32)
    name = "fake_quantize_per_tensor_affine"
    wanted = aten.fake_quantize_per_tensor_affine_cachemask(x, 0.05, zero, -128, 127)
    same(ours(f"{name}_cachemask")(x, 0.05, zero, -128, 127), wanted)
    same(ours(name)(x, 0.05, zero, -128, 127), wanted[0])
    halves = torch.arange(-9, 9) / 2 * 0.25  # ties go to even
    same(
        ours(name)(halves, 0.25, zero, 0, 255),
        torch.fake_quantize_per_tensor_affine(halves, 0.25, zero, 0, 255),
    )
    wanted = aten.fake_quantize_per_channel_affine_cachemask(x, scale, zeros, 0, 0, 255)
    same(ours("fake_quantize_per_channel_affine_cachemask")(x, scale, zeros, 0, 0, 255), wanted)
    for on in (0, 1):
        given = (x, scale[:1], zeros[:1], torch.tensor([on]), -7, 7)
        wanted = aten._fake_quantize_per_tensor_affine_cachemask_tensor_qparams(*given)
        same(ours("_fake_quantize_per_tensor_affine_cachemask_tensor_qparams")(*given), wanted)


def test_sides_that_are_infinite_or_no_numbers() -> None:
    edges = torch.tensor([0.0, -3.0, 3e38, torch.inf, -torch.inf, torch.nan])
    x, y = edges[:, None], edges[None]
    same(ours("hypot")(x, y), torch.hypot(x, y))
    same(ours("hypot")(x.double(), y.double()), torch.hypot(x.double(), y.double()))


def test_products_of_bytes() -> None:
    a, b = (torch.randint(-128, 128, shape, dtype=torch.int8) for shape in ((18, 32), (32, 16)))
    same(ours("_int_mm")(a, b), torch._int_mm(a, b))


def test_shifts_by_numbers() -> None:
    x = torch.tensor([-128, -3, 0, 5, 127], dtype=torch.int8)
    for name in ("__lshift__", "__rshift__"):
        operator = getattr(aten, name).Scalar
        same(ours(name, "Scalar")(x, 2), operator(x, 2))


@pytest.mark.parametrize("right", [False, True])
def test_places_of_what_is_no_number(right: bool) -> None:
    row, values = torch.tensor([-1.0, 0.0, 0.0, 2.0]), torch.tensor([0.0, torch.nan, torch.inf])
    wanted = torch.searchsorted(row, values, right=right)
    same(ours("searchsorted", "Tensor")(row, values, right=right), wanted)


KINDS = [torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64]


@pytest.mark.parametrize("kind", KINDS)
def test_powers_of_integers_are_exact_and_wrap(kind: Any) -> None:
    limits = torch.iinfo(kind)
    edges = [0, 1, 2, 3, 7, limits.max, limits.min, *((-1, -2, -3) if limits.min else ())]
    x = torch.tensor(edges, dtype=kind)
    same(ours("pow", "Tensor_Tensor")(x[:, None], x), torch.pow(x[:, None], x))
    for n in (0, 1, 2, 3, 13, 39, 63):
        same(ours("pow", "Tensor_Scalar")(x, n), torch.pow(x, n))
        same(ours("pow", "Scalar")(n, x), torch.pow(n, x))
    assert ours("pow", "Tensor_Scalar")(x, 0.5) is NotImplemented


@pytest.mark.parametrize("road", ["ONNX", "torch.export"])
def test_powers_beyond_what_floats_hold_come_in_by_either_road(road: str) -> None:
    class Powers(torch.nn.Module):
        def forward(self, x: Any, y: Any) -> Any:
            return x**3, x**y, 3**y, y.float() ** 3

    given = (torch.tensor([3037000501, -94906267, 3, -1]), torch.tensor([2, 2, 40, -3]))
    model = torch_model.load(Powers(), given, (road,))
    session = InferenceSession(driver.compile_model(model, Options(threads=1)).artifact)
    got = session.run(None, dict(zip(["x", "y"], map(np.asarray, given), strict=True)))
    for mine, wanted in zip(got, Powers()(*given), strict=True):
        np.testing.assert_allclose(mine, wanted, rtol=1e-6 if mine.dtype.kind == "f" else 0)
