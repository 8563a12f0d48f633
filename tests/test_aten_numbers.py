"""Logarithms, quotients and shifts, at the edges of their types and by both roads from torch."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onnx_models import check
from test_aten_converters import Function
from test_aten_decompositions import ours, same

torch = pytest.importorskip("torch")

from hybridc.compiler import driver  # noqa: E402 - needs torch
from hybridc.compiler.configuration.plans import Options  # noqa: E402
from hybridc.compiler.errors import ModelError  # noqa: E402
from hybridc.compiler.frontends import torch_model  # noqa: E402
from hybridc.compiler.runtime.session import InferenceSession  # noqa: E402

_SMALL = (0.0, 1e-30, 1e-9, 3e-8, 1e-4, 0.1, 0.7, 1.0, 2.5, 20.0, 90.0, 3e38, math.inf)
EDGES = torch.tensor([*_SMALL, *(-x for x in _SMALL), math.nan])
WHOLE = torch.tensor([2**53 + 1, -(2**53) - 1, 7, -7, 0, 2**24 + 1, -1], dtype=torch.int64)
DIVISORS = torch.tensor([2, -2, 1, 3, -3], dtype=torch.int64).unsqueeze(1)


def agree(road: str, function: Callable[..., Any], *inputs: Any) -> None:
    """To the last digits, unlike what is compared with random inputs."""
    model = torch_model.load(Function(function), inputs, [road])
    artifact = driver.compile_model(model, Options(verify="off", threads=2)).artifact
    feed = {spec.name: x.numpy() for spec, x in zip(model.inputs, inputs, strict=True)}
    got = InferenceSession(artifact, 2).run(None, feed)
    wanted = function(*inputs)
    for value, right in zip(got, wanted if isinstance(wanted, tuple) else (wanted,), strict=True):
        assert str(value.dtype) == str(right.dtype).removeprefix("torch.")
        np.testing.assert_allclose(value, right.numpy(), rtol=2e-6, atol=0)


def test_logarithms_near_zero() -> None:
    for name in ("expm1", "log1p"):
        wanted = getattr(torch, name)(EDGES.double()).float()
        same(ours(name)(EDGES), wanted, rtol=1e-6, atol=0)
    same(ours("log1p")(torch.arange(3)), torch.log1p(torch.arange(3)))
    wanted = torch.nn.functional.logsigmoid(EDGES.double()).float()
    same(ours("log_sigmoid")(EDGES), wanted, rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", ["logaddexp", "logaddexp2"])
def test_logarithms_of_sums(name: str) -> None:
    a, b = EDGES.unsqueeze(1), EDGES.unsqueeze(0)
    wanted = getattr(torch, name)(a.double(), b.double()).float()
    same(ours(name)(a, b), wanted, rtol=1e-6, atol=1e-7)


def test_quotients_of_floats() -> None:
    a = torch.cat([EDGES, torch.tensor([5.5, 0.3, 1e10])]).unsqueeze(1)
    b = torch.tensor([0.1, -0.1, 3.0, -3.0, 0.0, math.inf, -math.inf, math.nan])
    for kind in (torch.float32, torch.float64, torch.float16):
        x, y = a.to(kind), b.to(kind)
        same(ours("floor_divide")(x, y), torch.floor_divide(x, y))
        same(ours("remainder", "Tensor")(x, y), torch.remainder(x, y))
        wanted = torch.div(x, y, rounding_mode="trunc")
        same(ours("div", "Tensor_mode")(x, y, rounding_mode="trunc"), wanted)


@pytest.mark.parametrize("road", torch_model.ROADS)
def test_numbers_that_are_large_or_small(road: str) -> None:
    f = torch.nn.functional
    agree(
        road,
        lambda x: (torch.log1p(x), torch.expm1(x), f.logsigmoid(x), torch.logaddexp(x, 2 * x)),
        torch.tensor([-0.5, -1e-6, 1e-6, 1e-9, 3.0, 60.0]),
    )
    agree(road, lambda x: (x // 0.1, x % 0.1, torch.fmod(x, 0.3)), torch.tensor([1.0, -5.5, 1e6]))


@pytest.mark.parametrize("road", torch_model.ROADS)
def test_quotients_of_integers(road: str) -> None:
    def quotients(a: Any, b: Any) -> tuple[Any, ...]:
        modes = [torch.div(a, b, rounding_mode=mode) for mode in ("trunc", "floor")]
        return (*modes, a // b, a % b, torch.fmod(a, b), torch.div(a, 3, rounding_mode="trunc"))

    agree(road, quotients, WHOLE, DIVISORS)
    agree(road, quotients, WHOLE.int(), DIVISORS.int())


@pytest.mark.parametrize("road", torch_model.ROADS)
@pytest.mark.parametrize("kind", [torch.uint8, torch.int8, torch.int32])
def test_shifts(kind: Any, road: str) -> None:
    x = torch.tensor([0, 1, 100, 200, 255]).to(kind).unsqueeze(1)
    places = torch.tensor([0, 1, 4, 7, 8, 33]).to(kind)
    agree(road, lambda a, b: (a << b, a >> b, a >> 4, a << 1), x, places)


@pytest.mark.parametrize("road", torch_model.ROADS)
def test_running_sums_of_short_integers(road: str) -> None:
    agree(road, lambda x: (x.cumsum(0), (x > 0).cumsum(0)), torch.ones(600, dtype=torch.uint8))


@pytest.mark.parametrize("road", torch_model.ROADS)
def test_activations_by_numbers(road: str) -> None:
    f = torch.nn.functional
    agree(
        road,
        lambda x: (f.relu6(x), f.hardtanh(x, -2, 3), f.elu(x, 0.5), f.selu(x), f.celu(x, 0.7)),
        torch.tensor([-9.0, -2.5, -1.0, 0.0, 0.5, 2.5, 5.0, 7.0]),
    )


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_logarithms_of_powers_are_whole(kind: Any) -> None:
    least, most = (-14, 15) if kind is torch.float16 else (-126, 127)
    twos = torch.tensor([2.0**n for n in range(least, most)], dtype=kind)
    same(ours("log2")(twos), torch.arange(least, most).to(kind), rtol=0, atol=0)
    most = 5 if kind in {torch.float16, torch.bfloat16} else 23
    tens = torch.tensor([10.0**n for n in range(most)], dtype=kind)
    same(ours("log10")(tens), torch.log10(tens), rtol=0, atol=0)
    edges = torch.tensor(
        [0.0, -0.0, -1.0, torch.inf, -torch.inf, torch.nan, 1e-40, 3e38], dtype=kind
    )
    drawn = torch.rand(99).mul(1000).to(kind)
    for name in ("log2", "log10"):
        for x in (edges, drawn, torch.arange(1, 70)):
            same(ours(name)(x), getattr(torch, name)(x))


def test_steps_of_what_is_no_number() -> None:
    x = torch.tensor([0.0, -0.0, 1, -1, torch.nan, torch.inf, -torch.inf])
    values = torch.tensor([0.5, torch.nan, 2, 3, 4, 5, 6])
    same(ours("heaviside")(x, values), torch.heaviside(x, values))


def test_infinities_of_float64_are_no_large_numbers() -> None:
    def kinds(x: Any) -> Any:
        return torch.isinf(x), torch.isposinf(x), torch.isneginf(x), torch.isfinite(x)

    model = torch_model.load(Function(kinds), (torch.zeros(5).double(),), ["ONNX"])
    numbers = np.array([1e300, -1e300, np.inf, -np.inf, np.nan])
    check(model, {model.inputs[0].name: numbers})


@pytest.mark.parametrize("road", torch_model.ROADS)
def test_losses_with_smoothed_labels(road: str) -> None:
    weight = torch.rand(6) + 0.1

    def losses(x: Any, labels: Any, shares: Any) -> Any:
        loss = torch.nn.functional.cross_entropy
        options = {"label_smoothing": 0.2, "weight": weight}
        reduced = [loss(x, labels, reduction=how, **options) for how in ("mean", "sum", "none")]
        return *reduced, loss(x, labels), loss(x, shares, label_smoothing=0.3)

    x, shares = torch.randn(5, 6), torch.randn(5, 6).softmax(1)
    labels = torch.tensor([1, 4, -100, 0, 2])
    model = torch_model.load(Function(losses), (x, labels, shares), [road])
    names = [spec.name for spec in model.inputs]
    check(model, dict(zip(names, map(np.asarray, (x, labels, shares)), strict=True)))


@pytest.mark.parametrize("road", torch_model.ROADS)
@pytest.mark.parametrize("padding", [0, 1])
def test_averages_leave_out_what_lies_beyond_the_padding(road: str, padding: int) -> None:
    rest = (3, 2, padding, True)

    def averages(x: Any, y: Any) -> Any:
        pool = torch.nn.functional
        norms = pool.lp_pool2d(y.abs(), 2.0, 3, 2, True), pool.lp_pool1d(x.abs(), 2.0, 3, 2, True)
        return pool.avg_pool1d(x, *rest), pool.avg_pool2d(y, *rest), *norms

    check(
        torch_model.load(
            Function(averages), (torch.randn(1, 2, 8), torch.randn(1, 2, 6, 9)), [road]
        )
    )


def scaled(x: Any) -> Any:
    """What Python's numbers do beside float64."""
    full = torch.full((x.shape[0],), 0.3, dtype=torch.float64)
    chosen = torch.where(x > 0.1, x - 1e-9, 0.7)
    return (
        x * 0.1,
        torch.clamp(x, -0.1, 0.1),
        x > 0.1,
        full / 0.7,
        chosen,
        torch.fmod(x, 0.3) ** 2.1,
    )


@pytest.mark.parametrize("count", [4, "n"])
@pytest.mark.parametrize("road", torch_model.ROADS)
def test_numbers_beside_float64_keep_their_digits(road: str, count: int | str) -> None:
    """Torch's ONNX exporter rounds them to float32."""
    x = torch.tensor([0.1, 1.0, -2.0, 0.10000000149011612], dtype=torch.float64)
    program: Any = Function(scaled)
    if isinstance(count, str):
        if road != "ONNX":
            pytest.skip("open sizes come by way of ONNX alone")
        sizes = ({0: torch.export.Dim("n", min=2)},)
        program = torch.export.export(program, (x,), dynamic_shapes=(sizes,))
    given = (x,) if program.__class__ is Function else None
    model = torch_model.load(program, given, [road])
    session = InferenceSession(driver.compile_model(model, Options(threads=1)).artifact)
    got = session.run(None, {model.inputs[0].name: x.numpy()})
    for mine, wanted in zip(got, scaled(x), strict=True):
        np.testing.assert_allclose(mine, wanted, rtol=1e-14)


def test_a_number_that_float32_cannot_make_is_refused_beside_float64() -> None:
    x = torch.tensor([0.1, 1.0], dtype=torch.float64)
    with pytest.raises(ModelError, match=r"'aten.mul.Tensor' .* float64 and 1e-60"):
        torch_model.load(Function(lambda x: x * 1e-60), (x,), ["ONNX"])
