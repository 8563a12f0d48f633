"""`torch.compile(backend=...)` of what changes between calls: guards, state, breaks, sizes."""

import warnings
from collections.abc import Generator
from typing import Any

import pytest
from dynamo_checks import compiled

from hybridc.compiler.dynamo import torch_region
from hybridc.compiler.dynamo.torch_backend import FallbackWarning

torch = pytest.importorskip("torch")
nn = torch.nn
flex_attention = pytest.importorskip("torch.nn.attention.flex_attention")


@pytest.fixture(autouse=True)
def _strict(fresh_dynamo: None) -> Generator[None, None, None]:
    """Nothing falls back."""
    del fresh_dynamo
    with warnings.catch_warnings():
        warnings.simplefilter("error", FallbackWarning)
        yield


def same(got: Any, wanted: Any) -> None:
    torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-4)


class Cache(nn.Module):
    """Writes each call's row into a buffer, and counts."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(4, 3)
        self.register_buffer("rows", torch.zeros(6, 3))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Any, place: Any) -> Any:
        self.rows.index_copy_(0, place, self.project(x))
        self.count += 1
        return self.rows.cumsum(0) * 2, self.count + 0


def test_a_buffer_that_each_call_writes_to() -> None:
    ours, theirs = Cache(), Cache()
    theirs.load_state_dict(ours.state_dict())
    made = compiled(ours)
    for step in range(5):
        x, place = torch.randn(1, 4), torch.tensor([step])
        same(made(x, place), theirs(x, place))
        same(ours.state_dict(), theirs.state_dict())


class Scaled(nn.Module):
    """Multiplies by a number that is no tensor, one way or the other."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.upward = 2.0, True

    def forward(self, x: Any) -> Any:
        return x * self.scale if self.upward else x / self.scale


def test_numbers_and_choices_are_guarded() -> None:
    module, x = Scaled(), torch.randn(3)
    made = compiled(module)
    for scale, upward in ((2.0, True), (3.0, True), (3.0, False), (2.0, True)):
        module.scale, module.upward = scale, upward
        for _ in range(2):
            same(made(x), module(x))


def test_numbers_that_vary() -> None:
    """From the second one on Dynamo passes them as tensors."""

    def function(x: Any, *, by: float) -> Any:
        return x * by + by, torch.full((2,), by)

    made = compiled(function)
    for by in (0.5, 1.5, 2.5, 1.5):
        x = torch.randn(3)
        same(made(x, by=by), function(x, by=by))


def test_a_network_of_any_size() -> None:
    """With `dynamic=True` the epsilon of a norm is a number that may vary, too."""
    layers = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(2)
    module = nn.Sequential(*layers).eval()
    made = compiled(module, dynamic=True)
    for n in (8, 10):
        x = torch.randn(1, 3, n, n)
        same(made(x), module(x))


def test_other_types_are_guarded() -> None:
    made = compiled(lambda x: x * 2 + 1)
    for x in (torch.ones(3), torch.ones(3, dtype=torch.float64), torch.ones(3, dtype=torch.int32)):
        for _ in range(2):
            same(made(x), x * 2 + 1)


def test_an_argument_that_may_be_missing() -> None:
    def function(x: Any, mask: Any = None) -> Any:
        return x if mask is None else x.masked_fill(mask, 0.0)

    made, x = compiled(lambda x, mask=None: function(x * 2, mask)), torch.randn(4)
    mask = torch.tensor([True, False, True, False])
    for _ in range(2):
        same(made(x), function(x * 2))
        same(made(x, mask), function(x * 2, mask))


def test_writes_through_views_of_an_input() -> None:
    def function(x: Any) -> Any:
        x[:, 1].mul_(3)
        x.view(-1)[0] = 7
        return x.sum(0)

    made = compiled(function)
    ours, theirs = torch.arange(6.0).reshape(2, 3), torch.arange(6.0).reshape(2, 3)
    for _ in range(3):
        same(made(ours), function(theirs))
        same(ours, theirs)


def test_state_on_both_sides_of_a_break() -> None:
    seen: list[int] = []

    class Broken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("total", torch.zeros(3))

        def forward(self, x: Any) -> Any:
            self.total.add_(x)
            seen.append(1)
            torch._dynamo.graph_break()
            self.total.mul_(0.5)
            return self.total + x

    ours, theirs = Broken(), Broken()
    made = compiled(ours)
    for seed in range(4):
        x = torch.full((3,), float(seed))
        same(made(x), theirs(x))
        same(ours.total, theirs.total)
    assert len(seen) == 8, "what is no tensor runs at each call"


def test_sizes_that_vary_and_what_is_computed_of_them() -> None:
    def function(x: Any) -> Any:
        n = x.shape[0]
        return (x / n).softmax(0), x[: n // 2].sum() + n

    made = compiled(function, dynamic=True)
    for n in (4, 7, 4, 9):
        x = torch.randn(n, 3)
        same(made(x), function(x))


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_recurrent_networks(kind: str) -> None:
    module = getattr(nn, kind)(3, 4, num_layers=2, bidirectional=True, batch_first=True).eval()
    made = compiled(module)
    for seed in range(3):
        x = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(seed))
        same(made(x), module(x))


def test_linear_algebra_and_spectra() -> None:
    def function(x: Any) -> Any:
        q, r = torch.linalg.qr(x)
        return q @ r, torch.fft.irfft(torch.fft.rfft(x) * 2)

    made = compiled(function)
    for seed in range(3):
        x = torch.randn(4, 4, generator=torch.Generator().manual_seed(seed)) + 3 * torch.eye(4)
        same(made(x), function(x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_first_call_with_nan_is_compiled_all_the_same(dtype: Any) -> None:
    x = torch.randn(3, 4, dtype=dtype)
    x[1, 2] = torch.nan
    wanted = torch.where(x.isnan(), 2.0, x * 3)
    made = compiled(lambda x: torch.where(x.isnan(), 2.0, x * 3))
    for _ in range(2):
        same(made(x), wanted)


def test_graphs_that_differ_in_a_branch_alone_are_told_apart() -> None:
    def made(factor: float) -> Any:
        root, graph = nn.Module(), torch.fx.Graph()
        root.branch = torch.fx.symbolic_trace(lambda v: v * factor)
        graph.output(graph.call_module("branch", (graph.placeholder("x"),)))
        return torch.fx.GraphModule(root, graph)

    digest = torch_region._digest  # pyright: ignore[reportPrivateUsage]
    first, second = (digest(made(factor), "") for factor in (2.0, 3.0))
    assert first != second


def test_arguments_that_share_memory_with_one_that_is_written_to() -> None:
    """Torch's own guards of how they overlap are for code that is made within Dynamo."""

    def function(x: Any, y: Any) -> Any:
        return x.add_(1) + y

    made = compiled(function)
    for places in [(0, 4), (0, 4), (0, 2), (0, 2), (2, 0), (3, 0)]:
        ours, theirs = torch.arange(8.0), torch.arange(8.0)
        x, y = (ours[i : i + 4] for i in places)
        same(made(x, y), function(*(theirs[i : i + 4] for i in places)))
        same(ours, theirs)


@pytest.mark.filterwarnings("ignore:.*autocast")
def test_autocast_that_is_switched_off_in_a_part() -> None:
    weight, norm = torch.randn(8, 8), nn.LayerNorm(8)
    images = nn.Sequential(nn.Conv2d(2, 4, 1), nn.BatchNorm2d(4), nn.GroupNorm(2, 4)).eval()

    def function(x: Any) -> Any:
        narrow = x @ weight
        with torch.autocast("cpu", enabled=False):
            return narrow, x @ weight, norm(narrow), images(x.reshape(1, 2, 2, 4))

    made, x = compiled(function), torch.randn(2, 8)
    with torch.autocast("cpu", torch.bfloat16):
        wanted = function(x)
        for _ in range(3):
            got = made(x)
            torch.testing.assert_close(got[1], wanted[1])  # fp32
            torch.testing.assert_close(got, wanted, rtol=2e-2, atol=2e-2)


def test_outputs_that_show_the_same_memory() -> None:
    """Who writes to one of them changes the others."""

    def function(x: Any) -> Any:
        y = (x + 1).t()
        return y, y.reshape(-1, 2, 2)[1:], (y * 2).split(1)[1], y.t().view(-1), y.sum()

    made = compiled(function)
    for _ in range(2):
        ours, theirs = made(torch.zeros(2, 4)), function(torch.zeros(2, 4))
        for results in (ours, theirs):
            results[1].mul_(3)
            results[3].add_(5)
        same(ours, theirs)
        assert [x.stride() for x in ours] == [x.stride() for x in theirs]


def test_complex_weights_inputs_and_outputs() -> None:
    """As of rotary embeddings; AOTAutograd gives a conjugate as a view that negates."""
    turns = torch.polar(torch.ones(3, 4), torch.randn(3, 4))

    def function(x: Any, y: Any) -> Any:
        z = torch.view_as_complex(x.unflatten(-1, (-1, 2))) * turns
        y.mul_(2)
        return torch.view_as_real(z).flatten(-2), z * y, (z + y).conj(), z.T

    made = compiled(function)
    for _ in range(3):
        x, y = torch.randn(3, 8), torch.randn(3, 4, dtype=torch.complex64)
        theirs = y.clone()
        same(made(x, y), function(x, theirs))
        same(y, theirs)


def test_attention_with_scores_that_a_function_changes() -> None:
    slopes = torch.tensor([0.1, 0.2])
    causal = flex_attention.create_block_mask(_is_before, None, None, 128, 128, device="cpu")

    def function(x: Any) -> Any:
        return flex_attention.flex_attention(
            x, x, x, lambda score, b, h, i, j: score - slopes[h] * (i - j), block_mask=causal
        )

    made, x = compiled(function), torch.randn(1, 2, 128, 8)
    for _ in range(2):
        same(made(x), function(x))


def _is_before(batch: Any, head: Any, query: Any, key: Any) -> Any:
    del batch, head
    return query >= key


def test_a_view_of_what_torch_lays_out_otherwise_than_it_traces() -> None:
    norm = nn.BatchNorm1d(4).eval()
    made = compiled(lambda x: norm(x.transpose(1, 2)).transpose(1, 2).reshape(-1, 4))
    for _ in range(2):
        x = torch.randn(2, 3, 4)
        same(made(x), norm(x.transpose(1, 2)).transpose(1, 2).reshape(-1, 4))
