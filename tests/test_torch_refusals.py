"""What of a torch module cannot be compiled is named: the operator, the line, and what to do."""

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from hybridc.compiler.errors import ModelError  # noqa: E402 - needs torch
from hybridc.compiler.frontend import load  # noqa: E402


class Masked(torch.nn.Module):
    """Chooses as many elements as the data say."""

    def forward(self, x: Any) -> Any:
        return x[x > 0]


class Cut(torch.nn.Module):
    """Asks a tensor for a number."""

    def forward(self, x: Any) -> Any:
        return x[: int(x.sum().item())]


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
            r"'aten\.index\.Tensor' \(test_torch_refusals\.py:17, return x\[x > 0\]\).*fallb",
        ),
        (Cut(), r"cannot trace the module: .*torch\.where.*test_torch_refusals\.py:24, return x"),
        (Derived(), r"cannot trace the module: torch\.func\.grad.*derivative out"),
    ],
)
def test_modules_that_are_refused(module: Any, message: str) -> None:
    with pytest.raises(ModelError, match=f"^[^\n]*{message}[^\n]*$"):
        load(module, example_inputs=(torch.ones(2, 2),))
