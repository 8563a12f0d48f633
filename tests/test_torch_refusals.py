"""What of a torch module cannot be compiled is named: the operator, the line, and what to do."""

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from hybridc.compiler.errors import ModelError  # noqa: E402 - needs torch
from hybridc.compiler.frontend import load  # noqa: E402
from hybridc.compiler.frontends.torch_import import reasons  # noqa: E402


class Masked(torch.nn.Module):
    """Chooses as many elements as the data say."""

    def forward(self, x: Any) -> Any:
        return x[x > 0]


class Cut(torch.nn.Module):
    """Asks a tensor for a number."""

    def forward(self, x: Any) -> Any:
        return x[: int(x.sum().item())]


class Branching(torch.nn.Module):
    """Decides by a number."""

    def forward(self, x: Any) -> Any:
        return x + 1 if x.sum() > 0 else x


class Sliced(torch.nn.Module):
    """Takes as many columns of its weight as the data say."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(4, 8))

    def forward(self, x: Any) -> Any:
        columns = x.long().max().item()
        torch._check(columns >= 0)
        torch._check(columns <= 8)
        return self.weight[:, :columns].sum(1)


class Derived(torch.nn.Module):
    """Gives the gradient of a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def forward(self, x: Any) -> Any:
        return torch.func.grad(lambda t: self.layer(t).square().sum())(x)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (
            Masked(),
            r"'aten\.index\.Tensor' \(test_torch_refusals\.py:18, return x\[x > 0\]\).*fallb",
        ),
        (Cut(), r"cannot trace the module: .*torch\.where.*test_torch_refusals\.py:25, return x"),
        (
            Branching(),
            r"trace the module: Python code branches on \S+\(u\S+ \S+, a data-dependent value; ",
        ),
        (
            Sliced(),
            r"torch\.export: numbers or shapes within depend on the data; the shape of what",
        ),
        (Derived(), r"cannot trace the module: torch\.func\.grad.*derivative out"),
    ],
)
def test_modules_that_are_refused(module: Any, message: str) -> None:
    with pytest.raises(ModelError, match=f"^[^\n]*{message}[^\n]*$"):
        load(module, example_inputs=(torch.ones(2, 2),))


@pytest.mark.parametrize(
    ("says", "told"),
    [
        (
            "Could not extract specialized integer from data-dependent expression u0 "
            "(unhinted: u0).  (Size-like symbols: none)",
            "Python code needs the number of the data-dependent expression u0",
        ),
        (
            "expected one, got [Parameter(FakeTensor(..., size=(4, 8), requires_grad=True)), "
            "FakeTensor(..., size=(2,), dtype=torch.int64)]",
            "expected one, got [tensor of size=(4, 8), tensor of size=(2,)]",
        ),
    ],
)
def test_the_words_of_torch_are_told_in_plain_ones(says: str, told: str) -> None:
    assert reasons.reason(RuntimeError(says)) == told
