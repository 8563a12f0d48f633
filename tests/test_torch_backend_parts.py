"""`torch.compile(backend=...)` of graphs of which torch alone computes some operators."""

import warnings
from typing import Any

import pytest
from dynamo_checks import compiled, same

from hybridc.compiler.dynamo import torch_region, torch_split
from hybridc.compiler.dynamo.torch_backend import FallbackWarning
from hybridc.compiler.errors import ModelError

torch = pytest.importorskip("torch")
nn = torch.nn
pytestmark = pytest.mark.usefixtures("fresh_dynamo")


@pytest.fixture
def sessions(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The graphs that are compiled."""
    found: list[Any] = []
    real = torch_region.session

    def counted(module: Any, *rest: Any) -> Any:
        found.append(module)
        return real(module, *rest)

    monkeypatch.setattr(torch_region, "session", counted)
    return found


def agree_on_numbers(function: Any, *args: Any, message: str) -> None:
    """With one state of the generator, eager and compiled code give the same, and one warning."""
    made = compiled(function)
    for call in range(3):
        torch.manual_seed(call)
        wanted = function(*args)
        torch.manual_seed(call)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", FallbackWarning)
            same(made(*args), wanted)
        said = [str(each.message) for each in caught if each.category is FallbackWarning]
        assert len(said) == (call == 0)
        assert all(message in each for each in said)


def test_numbers_are_drawn_as_in_eager_execution(sessions: list[Any]) -> None:
    """Each draws behind the one before, even where it could go first."""

    def function(x: Any) -> Any:
        y = torch.relu(x) + torch.rand(3)
        return y.exp() * torch.randn(2, 3), torch.bernoulli(torch.sigmoid(y))

    agree_on_numbers(function, torch.randn(2, 3), message="'aten.rand.default' draws random")
    assert len(sessions) == 2


def test_a_network_in_training_mode() -> None:
    layers = nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2), nn.Dropout(0.2)
    network = nn.Sequential(*layers).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    x = torch.randn(5, 4)
    agree_on_numbers(network, x, message="draws random")
    counted = network.state_dict()["1.num_batches_tracked"] - before["1.num_batches_tracked"]
    assert int(counted) == 6  # three calls of each


def test_views_and_writes_of_parts() -> None:
    """An output that shows another's memory does so, whichever part made it."""

    def function(x: Any, cache: Any) -> Any:
        made = torch.relu(x) * 2
        drawn = torch.rand(3, 4)
        cache[0] = (made + drawn)[1]
        return made, made.t(), drawn, drawn[1:], x[1:], cache.sum()

    made, caches = compiled(function), (torch.zeros(2, 4), torch.zeros(2, 4))
    x = torch.randn(3, 4)
    for _ in range(3):
        results = []
        for each, cache in zip((made, function), caches, strict=True):
            torch.manual_seed(1)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FallbackWarning)
                results.append(each(x, cache))
            results[-1][1].add_(1)
            results[-1][3].mul_(2)
        same(*results)
        same(*caches)
        assert results[0][4].data_ptr() == x[1:].data_ptr()


def test_operators_of_other_libraries(sessions: list[Any]) -> None:
    with torch.library._scoped_library("hybridc_tests", "FRAGMENT") as library:
        library.define("twice(Tensor x) -> Tensor")
        library.impl("twice", lambda x: x * 2, "CompositeExplicitAutograd")

        def function(x: Any) -> Any:
            return torch.ops.hybridc_tests.twice(x.exp() @ x.T).softmax(-1)

        said = "'hybridc_tests.twice.default' is not supported"
        agree_on_numbers(function, torch.randn(3, 4), message=said)
    assert len(sessions) == 2


def test_a_scan_runs_eagerly_between_what_is_compiled(sessions: list[Any]) -> None:
    from torch._higher_order_ops.scan import scan

    def function(x: Any) -> Any:
        last, sums = scan(lambda c, u: (c + u, (c * u).clone()), torch.zeros(4), x.relu(), dim=0)
        return last.exp(), sums @ sums.T

    agree_on_numbers(function, torch.randn(3, 4), message="'scan' is not supported")
    assert len(sessions) == 2


def test_a_part_that_is_refused_runs_eagerly(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> Any:
        raise ModelError("it is refused")

    monkeypatch.setattr(torch_region, "session", refused)
    made = compiled(lambda x: (x + 1) * torch.rand(3))
    drawn = pytest.warns(FallbackWarning, match="draws random")
    with drawn, pytest.warns(FallbackWarning, match="it is refused"):
        made(torch.ones(3))
    torch.manual_seed(0)
    wanted = 2 * torch.rand(3)
    torch.manual_seed(0)
    same(made(torch.ones(3)), wanted)


def test_a_graph_of_too_many_parts_runs_eagerly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_split, "_MOST_PARTS", 2)
    made = compiled(lambda x: torch.bernoulli(torch.rand(3) * x) + 1)
    with pytest.warns(FallbackWarning, match="more than 2 parts"):
        made(torch.ones(3))
