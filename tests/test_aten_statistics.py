"""Statistics, segments, least squares, alignments and runs give what torch gives, at edges too."""

from collections.abc import Callable
from typing import Any

import pytest
from onnx_models import check

torch = pytest.importorskip("torch")

from hybridc.compiler.errors import ModelError  # noqa: E402 - needs torch
from hybridc.compiler.frontends import torch_model  # noqa: E402
from hybridc.compiler.frontends.aten import alignments, statistics  # noqa: E402
from hybridc.compiler.frontends.torch_import import decompositions, traceable  # noqa: E402

aten = torch.ops.aten
NAN, INF = float("nan"), float("inf")


class Function(torch.nn.Module):
    """A plain function as a module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Any) -> Any:
        return self.function(*inputs)


def agree(function: Callable[..., Any], *inputs: Any, road: str = "torch.export") -> None:
    model = torch_model.load(Function(function), inputs, [road])
    check(model, {spec.name: x.numpy() for spec, x in zip(model.inputs, inputs, strict=True)})


def same(got: Any, wanted: Any, **limits: float) -> None:
    torch.testing.assert_close(got, wanted, equal_nan=True, **limits)


def drawn(*shape: int) -> Any:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize("reduce", ["sum", "mean", "prod", "max", "min"])
@pytest.mark.parametrize("initial", [None, 0.0, 2.0])
@pytest.mark.parametrize("axis", [0, 1])
def test_segments(axis: int, initial: float | None, reduce: str) -> None:
    ours = decompositions.own()[aten.segment_reduce.default]
    x = drawn(2, 6, 3) if axis else drawn(6, 3)
    x.view(-1)[4] = NAN
    lengths = torch.tensor([[1, 0, 3, 2], [0, 6, 0, 0]] if axis else [0, 2, 4, 0])
    given = {"axis": axis, "initial": initial}
    same(
        ours(x, reduce, lengths=lengths, **given),
        torch.segment_reduce(x, reduce, lengths=lengths, **given),
    )
    zero = torch.zeros_like(lengths[..., :1])
    offsets = torch.cat([zero, lengths.cumsum(axis)], axis)
    wanted = torch.segment_reduce(x, reduce, offsets=offsets, **given)
    same(ours(x, reduce, offsets=offsets, **given), wanted)


EDGES = torch.tensor([-1.0, -1.0, 0.0, 0.25, 0.5, 1.0, 1.0, 1.5, -2.0])


@pytest.mark.parametrize("density", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("limits", [None, (-1.0, 1.0), (0.5, 0.5)])
def test_histograms(limits: Any, weighted: bool, density: bool) -> None:
    x = torch.cat([EDGES, drawn(200)]).reshape(11, 19)
    options = {"weight": drawn(11, 19).abs() if weighted else None, "density": density}
    ours = decompositions.own()[aten.histogram.bin_ct]
    for bins in (1, 4, 7):
        same(
            ours(x, bins, range=limits, **options),
            tuple(torch.histogram(x, bins, range=limits, **options)),
        )
    borders = torch.tensor([-1.0, -0.5, 0.5, 1.0])
    ours = decompositions.own()[aten.histogram.bins_tensor]
    same(ours(x, borders, **options), tuple(torch.histogram(x, borders, **options)))


def test_a_histogram_of_equal_numbers() -> None:
    ours = decompositions.own()[aten.histogram.bin_ct]
    same(ours(torch.full((5,), 3.0), 4), tuple(torch.histogram(torch.full((5,), 3.0), 4)))


@pytest.mark.parametrize("correction", [0, 1, 2])
def test_covariances(correction: int) -> None:
    rows = drawn(4, 7)
    counts, weights = torch.tensor([1, 2, 0, 3, 1, 1, 2]), drawn(7).abs()
    for fweights in (None, counts):
        for aweights in (None, weights):
            given: dict[str, Any] = {
                "correction": correction,
                "fweights": fweights,
                "aweights": aweights,
            }
            same(statistics.covariance(rows, **given), torch.cov(rows, **given))
    for x in (rows[0], torch.arange(6).reshape(2, 3), torch.complex(rows, rows.flip(0))):
        same(statistics.covariance(x, correction=correction), torch.cov(x, correction=correction))
        same(statistics.correlation(x), torch.corrcoef(x))


@pytest.mark.parametrize("driver", [None, "gels", "gelsy"])
@pytest.mark.parametrize(
    ("shape", "right"),
    [
        ((5, 3), (5, 2)),
        ((3, 5), (3, 2)),
        ((4, 4), (4,)),
        ((2, 5, 3), (2, 5)),
        ((2, 5, 3), (2, 5, 2)),
    ],
)
def test_least_squares(shape: tuple[int, ...], right: tuple[int, ...], driver: str | None) -> None:
    a, b = drawn(*shape), drawn(*right)
    if len(right) == 1 or len(right) < len(shape):
        b = b.unsqueeze(-1)  # torch's own operator takes no vectors
    got = statistics.least_squares(a, b, driver=driver)
    wanted = torch.linalg.lstsq(a, b, driver=driver)
    for ours, theirs in zip(got, wanted, strict=True):
        same(ours, theirs, rtol=1e-3, atol=1e-3)


def test_least_squares_of_a_lower_rank() -> None:
    a = drawn(5, 2) @ drawn(2, 4)
    got, wanted = statistics.least_squares(a, drawn(5, 2)), torch.linalg.lstsq(a, drawn(5, 2))
    same(got.solution, wanted.solution, rtol=1e-3, atol=1e-3)
    same(got.rank, wanted.rank)


def losses(reduction: str, zero: bool = False) -> Callable[..., Any]:
    def function(x: Any, targets: Any, steps: Any, lengths: Any) -> Any:
        options = {"reduction": reduction, "zero_infinity": zero}
        p = x.log_softmax(-1)
        return torch.nn.functional.ctc_loss(p, targets, steps, lengths, **options)

    return function


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_alignments(reduction: str) -> None:
    """Repeated labels, an empty target, one that is too long for its steps, and short rows."""
    targets = torch.tensor([[1, 1, 2, 3], [4, 0, 0, 0], [2, 2, 2, 2], [1, 2, 3, 4]])
    steps, lengths = torch.tensor([9, 5, 5, 7]), torch.tensor([4, 0, 4, 3])
    agree(losses(reduction, zero=True), drawn(9, 4, 5), targets, steps, lengths)
    agree(losses(reduction), drawn(9, 4, 5)[:, :2], targets[:2], steps[:2], lengths[:2])


def test_alignments_of_targets_in_a_row() -> None:
    x, targets = drawn(8, 3, 6), torch.tensor([1, 2, 2, 5, 4, 4])
    agree(losses("none"), x, targets, torch.tensor([8, 8, 6]), torch.tensor([2, 3, 1]))
    agree(
        lambda x, y: losses("mean")(x, y, (8, 8, 6), (2, 3, 1)),
        x,
        targets,
    )
    agree(lambda x, y: losses("sum")(x, y, (8,), (4,)), x[:, 0], targets[:4])


def test_infinite_losses() -> None:
    x, y = drawn(3, 1, 5), torch.tensor([[1, 1, 1]])
    model = torch_model.load(
        Function(losses("none")), (x, y, torch.tensor([3]), torch.tensor([3])), ["torch.export"]
    )
    assert "alignments" in model.module.script()
    agree(losses("none"), x, y, torch.tensor([3]), torch.tensor([3]))


TRACED: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "corrcoef": (lambda x: torch.corrcoef(x) + x.corrcoef(), (drawn(3, 8),)),
    "cov": (lambda x: torch.cov(x) + x.cov(correction=0), (drawn(3, 8),)),
    "histogram": (lambda x: tuple(torch.histogram(x, 5)), (drawn(30),)),
    "lstsq": (lambda a, b: torch.linalg.lstsq(a, b).solution, (drawn(6, 3), drawn(6, 2))),
    "segments": (
        lambda x, n: torch.segment_reduce(x, "max", lengths=n, unsafe=True),
        (drawn(6, 2), torch.tensor([2, 0, 4])),
    ),
}


@pytest.mark.parametrize("name", TRACED)
def test_what_torch_cannot_trace(name: str) -> None:
    function, inputs = TRACED[name]
    agree(function, *inputs)


def test_residuals_that_the_data_decide_are_refused() -> None:
    with pytest.raises(ModelError, match="the driver 'gelsd', whose residuals depend on the data"):
        agree(lambda a, b: torch.linalg.lstsq(a, b, driver="gelsd")[0], drawn(4, 2), drawn(4, 1))


def test_torch_is_itself_again_after_an_export() -> None:
    with traceable.Traceable():
        torch.cov(drawn(2, 3))
    assert torch.cov in traceable.replacements()
    assert alignments.ctc_loss in traceable.replacements().values()
    with pytest.raises(RuntimeError, match="aweights"):  # torch checks what ours does not
        torch.cov(drawn(2, 3), aweights=-torch.ones(3))


RUNS: dict[str, tuple[Callable[..., Any], Any]] = {
    "numbers": (torch.unique_consecutive, torch.tensor([1.0, 1, 2, 2, 1])),
    "largest first": (
        lambda x: torch.unique_consecutive(x, return_counts=True),
        torch.tensor([2**31 - 1, 2**31 - 1, 4], dtype=torch.int32),
    ),
    "matrix": (
        lambda x: torch.unique_consecutive(x, return_inverse=True, return_counts=True),
        torch.tensor([[3, 3, 4], [4, 3, 3]]),
    ),
    "rows": (
        lambda x: torch.unique_consecutive(x, return_inverse=True, return_counts=True, dim=0),
        torch.tensor([[1.0, 2], [1, 2], [1, 3], [1, 2]]),
    ),
    "columns": (
        lambda x: torch.unique_consecutive(x, return_inverse=True, return_counts=True, dim=1),
        torch.tensor([[1.0, 1, 1, 2], [3, 3, 4, 4]]),
    ),
}


@pytest.mark.parametrize("name", RUNS)
def test_runs_of_equal_elements(name: str) -> None:
    from hybridc.compiler import driver
    from hybridc.compiler.configuration.plans import Options
    from hybridc.compiler.runtime.session import InferenceSession

    function, x = RUNS[name]
    # The reference is eager, and the answer is compared with it.
    outcome = driver.compile_source(Function(function), Options(threads=1), example_inputs=(x,))
    session = InferenceSession(outcome.artifact, 1)
    other = x.flip(0)
    wanted = function(other)
    got = session.run(None, {session.get_inputs()[0].name: other.numpy()})
    wanted = wanted if isinstance(wanted, tuple) else (wanted,)
    for ours, theirs in zip(got, wanted, strict=True):
        same(torch.from_numpy(ours), theirs)


def test_counts_of_as_many_numbers_as_there_are() -> None:
    for x in (torch.tensor([1, 2, 2, 7]), torch.tensor([0, 0])):
        weights = torch.arange(float(len(x)))
        for given in ((None, 0), (None, 4), (weights, 9), (weights.double(), 0)):
            same(statistics.count(x, *given), torch.bincount(x, *given))
