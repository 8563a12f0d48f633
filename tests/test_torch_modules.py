"""Modules that came from nobody's benchmark: what they need is computed, or refused in a line."""

import gc
from typing import Any

import pytest
from onnx_models import check

from hybridc.compiler import driver
from hybridc.compiler.errors import ModelError
from hybridc.compiler.frontend import load
from hybridc.compiler.frontends import torch_model

torch = pytest.importorskip("torch")

from hybridc.compiler.frontends.torch_import import decompositions  # noqa: E402 - needs torch


@pytest.mark.parametrize("road", torch_model.ROADS)
def test_bits_are_shifted(road: str) -> None:
    class Shifts(torch.nn.Module):
        def forward(self, x: Any, n: Any) -> Any:
            return x << n, x >> n

    x = torch.tensor([1, -1, 100, -100, 2**30, -(2**31)], dtype=torch.int32)
    n = torch.tensor([0, 1, 3, 7, 1, 31], dtype=torch.int32)
    model = torch_model.load(Shifts(), (x, n), [road])
    check(model, {"x": x.numpy(), "n": n.numpy()})


@pytest.mark.parametrize("road", torch_model.ROADS)
def test_numbers_without_sign_turn_round(road: str) -> None:
    class Negative(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return -x, -(x.to(torch.uint8))

    x = torch.tensor([0, 1, -1, 127, 128, -128, 255], dtype=torch.int32)
    check(torch_model.load(Negative(), (x,), [road]), {"x": x.numpy()})


@pytest.mark.parametrize("road", torch_model.ROADS)
def test_what_is_asserted_of_the_data_is_left_out(road: str) -> None:
    class Asserting(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            torch._check_tensor_all(x < 10)
            return x + 1, torch._is_all_true(x > 0), torch._is_any_true(x > 0)

    x = torch.tensor([-1.0, 2.0])
    check(torch_model.load(Asserting(), (x,), [road]), {"x": x.numpy()})


def test_rows_are_sent_to_experts() -> None:
    """How many each gets depends on the data, and the ranks of what follows as well."""

    class Experts(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate = torch.nn.Linear(6, 2)
            self.experts = torch.nn.ModuleList(torch.nn.Linear(6, 6) for _ in range(2))

        def forward(self, x: Any) -> Any:
            made, chosen = torch.zeros_like(x), self.gate(x).argmax(-1)
            for number, expert in enumerate(self.experts):
                rows = torch.where(chosen == number)[0]
                made.index_add_(0, rows, expert(x[rows]))
            return made

    driver.compile(Experts(), example_inputs=(torch.randn(7, 6),), threads=1)


@pytest.mark.parametrize("ends", [(2, 2, 5, 7), (0, 3, 3, 6), (1, 2, 3, 3)])
@pytest.mark.parametrize("rows", [4, 7])
def test_rows_times_the_matrix_of_their_group(rows: int, ends: tuple[int, ...]) -> None:
    x, w, bias = torch.randn(rows, 3), torch.randn(4, 3, 5), torch.randn(4, 5)
    wanted, start = torch.zeros(rows, 5), 0
    for group, end in enumerate(ends):
        wanted[start:end] = x[start:end] @ w[group] + bias[group]
        start = end
    grouped = decompositions.own()[torch.ops.aten._grouped_mm.default]
    got = grouped(x, w, torch.tensor(ends, dtype=torch.int32), bias)
    torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("road", torch_model.ROADS)
def test_rows_are_sorted_by_their_experts(road: str) -> None:
    """As the transformers do: of float32 by an operator of their own."""
    pytest.importorskip("transformers.integrations.moe")

    class Experts(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weights = torch.nn.Parameter(torch.randn(4, 5, 6))

        def forward(self, x: Any, chosen: Any) -> Any:
            places, order = torch.sort(chosen)
            count = torch.histc(places.float(), bins=4, min=0, max=3)
            ends = torch.cumsum(count, 0, dtype=torch.int32)
            weights = self.weights.transpose(1, 2)
            return torch.ops.transformers.grouped_mm_fallback(x[order], weights, ends)

    x, chosen = torch.randn(9, 6), torch.tensor([3, 1, 1, 0, 3, 3, 0, 1, 1])
    for rows in (9, 3):
        model = torch_model.load(Experts(), (x[:rows], chosen[:rows]), [road])
        check(model, {"x": x[:rows].numpy(), "chosen": chosen[:rows].numpy()})


def test_angles_on_the_axes() -> None:
    """Of zeros with signs, of infinities, and of what is no number."""
    edges = torch.tensor([0.0, -0.0, 1, -1, 1e-30, -3e38, torch.inf, -torch.inf, torch.nan])

    class Angle(torch.nn.Module):
        def forward(self, y: Any, x: Any) -> Any:
            return torch.atan2(y, x), torch.complex(x, y).angle(), torch.angle(x)

    y, x = (each.flatten() for each in torch.meshgrid(edges, edges, indexing="ij"))
    for kind in (torch.float32, torch.float64):
        model = torch_model.load(Angle(), (y.to(kind), x.to(kind)), ["ONNX"])
        check(model, {"y": y.to(kind).numpy(), "x": x.to(kind).numpy()})


def test_example_inputs_verify_where_random_ones_are_refused() -> None:
    class Picky(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = torch.nn.Embedding(300, 4)

        def forward(self, a: Any) -> Any:
            return self.words(a - 1000)

    inputs = (torch.randint(1000, 1300, (2, 3)),)
    artifact = driver.compile(Picky(), example_inputs=inputs, threads=1)
    assert artifact.certificate["data"] == "the example inputs, 1 sample"


class Scattering(torch.nn.Module):
    """Rows added up at random, and numbers rounded by a step that learns."""

    def __init__(self) -> None:
        super().__init__()
        self.step = torch.nn.Parameter(torch.full((4,), 0.1))

    def forward(self, x: Any, place: Any) -> Any:
        zeros = torch.zeros(4, dtype=torch.int32)
        x = torch.fake_quantize_per_channel_affine(x, self.step, zeros, 1, -7, 7)
        return torch.zeros(3, 4).scatter_reduce(0, place.expand(5, 4), x, "mean")


def test_nothing_is_written_beside_the_answer(capfd: pytest.CaptureFixture[str]) -> None:
    inputs = torch.randn(5, 4), torch.randint(0, 3, (5, 1))
    driver.compile(Scattering(), example_inputs=inputs, threads=1)
    lacking = "ONNX: operator 'aten.linalg_ldl_factor_ex.default' is not supported$"
    with pytest.raises(ModelError, match=lacking):
        load(Ldl(), example_inputs=(torch.eye(3),))
    gc.collect()  # what was left half-built would complain
    assert capfd.readouterr() == ("", "")


class Ldl(torch.nn.Module):
    """What no road has."""

    def forward(self, x: Any) -> Any:
        return torch.linalg.ldl_factor(x + 1)


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_what_torch_has_quantised_is_refused_by_its_name() -> None:
    linear = torch.ao.nn.quantized.dynamic.Linear(4, 3)
    with pytest.raises(ModelError, match=r"quantized.dynamic.*Linear holds integers .* --dtype"):
        load(torch.nn.Sequential(linear), example_inputs=(torch.randn(2, 4),))
