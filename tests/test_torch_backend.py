"""`torch.compile(backend=...)` gives the answers of eager."""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
from dynamo_checks import agree, compiled, same

import hybridc
from hybridc.compiler.dynamo import torch_calls, torch_region
from hybridc.compiler.dynamo.torch_backend import FallbackWarning

torch = pytest.importorskip("torch")
nn = torch.nn
pytestmark = pytest.mark.usefixtures("fresh_dynamo")


@pytest.fixture
def sessions(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Each compilation of the test: the module and its inputs."""
    made: list[Any] = []
    real = torch_region.compiled

    def counted(module: Any, inputs: Any, options: Any) -> Any:
        made.append((module, inputs))
        return real(module, inputs, options)

    monkeypatch.setattr(torch_region, "compiled", counted)
    return made


class Encoder(nn.Module):
    """Attention, a norm and a residual, with a buffer that is added."""

    def __init__(self) -> None:
        super().__init__()
        self.attend = nn.MultiheadAttention(16, 2, batch_first=True)
        self.norm = nn.LayerNorm(16)
        self.register_buffer("place", torch.randn(5, 16))

    def forward(self, x: Any) -> Any:
        x = x + self.place
        return self.norm(x + self.attend(x, x, x, need_weights=False)[0])


def image() -> Any:
    layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(36, 5)).eval()


def nested(x: Any, pair: Any) -> Any:
    return {"sum": x + pair[0], "none": None, "rest": [pair[1] > 0, (x * 2).sum(), 3]}


MODULES: dict[str, Callable[[], tuple[Any, tuple[Any, ...]]]] = {
    "linear": lambda: (nn.Linear(4, 3), (torch.randn(2, 4),)),
    "image": lambda: (image(), (torch.randn(2, 3, 8, 8),)),
    "encoder": lambda: (Encoder().eval(), (torch.randn(2, 5, 16),)),
    "embedding": lambda: (nn.Embedding(9, 4), (torch.tensor([[1, 8, 0]]),)),
    "dropout": lambda: (nn.Dropout(0.5).eval(), (torch.randn(3),)),
    "nested": lambda: (nested, (torch.randn(3), (torch.randn(3), torch.randn(3)))),
    "integers": lambda: (
        lambda x, y: (x * y - 1, x > y, ~(x > 1)),
        (torch.arange(4), torch.arange(4)),
    ),
    "scalar": lambda: (lambda x: (x.mean(), x.max(), x.argmax()), (torch.randn(3, 4),)),
    "strides": lambda: (lambda x: (x * 2).permute(2, 0, 1) + 1, (torch.randn(2, 3, 4),)),
    "expanded": lambda: (
        lambda x: ((x + 1).expand(2, 3, 4), x.sum(1, keepdim=True).expand(3, 5), x.expand(2, 3, 4)),
        (torch.randn(3, 4),),
    ),
    "transposed": lambda: (lambda x: x.exp(), (torch.randn(3, 4).t(),)),
    "slice": lambda: (lambda x: x + 1, (torch.randn(33)[1:],)),
    "negated": lambda: (lambda x: x + 1, (torch.randn(4, dtype=torch.complex64).conj().imag,)),
    "views": lambda: (lambda x: (x.view(-1), x[0], x + 1, x), (torch.randn(2, 3),)),
    "twice": lambda: (lambda x: ((y := x + 1), y, y * 2), (torch.randn(3),)),
    "half": lambda: (nn.Linear(4, 3).half(), (torch.randn(2, 4).half(),)),
    "bfloat16": lambda: (lambda x: (x * 2, x.t() + 1), (torch.randn(2, 4).bfloat16(),)),
    "double": lambda: (lambda x: x @ x, (torch.randn(3, 3, dtype=torch.float64),)),
    "keyword": lambda: (lambda x, *, by=2.0: x * by, (torch.randn(3),)),
}


@pytest.mark.parametrize("name", MODULES)
def test_small_modules(name: str) -> None:
    function, args = MODULES[name]()
    agree(function, args)


def test_code_is_really_compiled_and_run(sessions: list[Any], monkeypatch: Any) -> None:
    layer, x = nn.Linear(4, 3), torch.randn(2, 4)
    made = compiled(layer)
    made(x)
    assert len(sessions) == 1
    assert len(sessions[0][1]) == 1, "weights are constants"
    monkeypatch.setattr(torch_region.Region, "compile", None)
    calls: list[Any] = []
    real = torch_calls.Calls.__call__
    monkeypatch.setattr(torch_calls.Calls, "__call__", lambda *a: calls.append(a) or real(*a))
    same(made(x), layer(x))
    assert len(calls) == 1


def test_graph_breaks() -> None:
    def function(x: Any) -> Any:
        y = torch.relu(x) + 1
        torch._dynamo.graph_break()
        y = y * 2 if y.sum().item() > 4 else y - 1
        return y.view(-1) @ y.view(-1)

    agree(function, (torch.ones(2, 3),), (torch.zeros(2, 3),))


def test_other_shapes_are_compiled_again(sessions: list[Any]) -> None:
    layer = nn.Linear(4, 3)
    agree(layer, *[(torch.randn(n, 4),) for n in (2, 3, 5, 2)])
    assert [inputs[0].shape[0] for _, inputs in sessions] == [2, 3, 5]


def test_sizes_that_vary_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hybridc.compiler.dynamo.torch_backend, "_MOST_VARIANTS", 2)

    def function(x: Any) -> Any:
        return x * x.shape[0]

    made = compiled(function, dynamic=True)
    for n in (2, 3):
        same(made(torch.ones(n)), function(torch.ones(n)))
    with pytest.warns(FallbackWarning, match="compiled for 2 sizes already"):
        made(torch.ones(4))
    same(made(torch.ones(4)), function(torch.ones(4)))


def test_static_shapes_on_demand() -> None:
    layer = nn.Linear(4, 3)
    agree(layer, (torch.randn(2, 4),), (torch.randn(3, 4),), made=compiled(layer, dynamic=False))


def test_inputs_that_are_written_to() -> None:
    def function(x: Any, cache: Any) -> Any:
        cache[1].add_(x)
        x.mul_(2)
        return cache * 3

    made = compiled(function)
    ours, theirs = ((torch.ones(3), torch.arange(6.0).view(2, 3)) for _ in range(2))
    for _ in range(3):
        same(made(*ours), function(*theirs))
        same(ours, theirs)


def test_an_output_that_is_a_view_stays_one() -> None:
    x = torch.zeros(2, 3)
    made = compiled(lambda x: (x.t(), x + 1))
    for _ in range(2):
        made(x)[0].fill_(7)
        assert bool((x == 7).all())
        x.zero_()


def test_batch_norm_in_training_counts_its_statistics() -> None:
    ours, theirs = (nn.BatchNorm1d(3) for _ in range(2))
    made = compiled(ours)
    warnings.simplefilter("error", FallbackWarning)
    for seed in range(4):
        x = torch.randn(5, 3, generator=torch.Generator().manual_seed(seed))
        same(made(x), theirs(x))
        same(ours.state_dict(), theirs.state_dict())


def test_weights_that_change_are_seen(sessions: list[Any]) -> None:
    layer, x = nn.Linear(4, 3), torch.randn(2, 4)
    made = compiled(layer)
    agree(layer, (x,), made=made)
    layer.weight.add_(1)
    agree(layer, (x,), made=made)
    layer.load_state_dict({"weight": torch.ones(3, 4), "bias": torch.ones(3)})
    agree(layer, (x,), made=made)
    layer.weight.data = torch.zeros(3, 4)
    agree(layer, (x,), made=made)
    assert [len(inputs) for _, inputs in sessions] == [1, 2, 3]


def test_weights_as_inputs(sessions: list[Any]) -> None:
    layer = nn.Linear(4, 3)
    agree(layer, (torch.randn(2, 4),), made=compiled(layer, options={"freeze": False}))
    assert len(sessions[0][1]) == 3


def test_equal_graphs_share_their_code(sessions: list[Any]) -> None:
    made = [compiled(lambda x: x.exp() + 3) for _ in range(2)]
    for function in made:
        function(torch.ones(3))
    assert len(sessions) == 1


@pytest.mark.parametrize("inside", [False, True])
def test_inference_mode(inside: bool) -> None:
    with torch.inference_mode(inside):
        layer = nn.Linear(4, 3)
    with torch.inference_mode():
        agree(layer, (torch.randn(2, 4),))


def test_a_conjugate_as_an_input() -> None:
    """What is pending in an argument is resolved, so that of a graph's conjugates others pend."""
    made, numbers = compiled(lambda z: (z.imag.exp(), z.real, z * 2)), torch.randn(3, 4, 2)
    for _ in range(3):
        z = torch.view_as_complex(numbers).conj()
        same(made(z), (z.imag.exp(), z.real, z * 2))


def test_memory_that_is_seen_otherwise() -> None:
    """Equal graphs with equal sizes, whose arguments lie otherwise: not by the same code."""
    x = torch.arange(12.0)
    made = compiled(lambda x: x.as_strided((2, 3), (1, 2)) + 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FallbackWarning)
        for given in (x.view(3, 4), x.view(4, 3).t()) * 2:
            same(made(given), given.as_strided((2, 3), (1, 2)) + 1)
