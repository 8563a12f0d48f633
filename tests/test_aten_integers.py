"""Decompositions of fake quantisation, products of bytes and lengths give what torch gives."""

import pytest
from test_aten_decompositions import ours, same

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
