"""`torch.compile(backend=...)` where it gives way to eager, its options, and errors."""

import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from dynamo_checks import agree, compiled, falls_back

import hybridc
from hybridc.compiler.dynamo import torch_region
from hybridc.compiler.dynamo.torch_backend import FallbackWarning, torch_backend
from hybridc.compiler.errors import InputError, WrongAnswerError

torch = pytest.importorskip("torch")
nn = torch.nn
pytestmark = pytest.mark.usefixtures("fresh_dynamo")


def test_gradients_are_left_to_eager() -> None:
    with torch.enable_grad():
        layer, x = nn.Linear(4, 3), torch.randn(2, 4)
        falls_back(layer, x, message="gradients are required; call it under torch.no_grad")
        layer.requires_grad_(False)
        torch._dynamo.reset()
        agree(layer, (x,))


def test_what_is_not_supported_is_named() -> None:
    falls_back(torch.linalg.eigvals, torch.randn(3, 3), message="eig")
    torch._dynamo.reset()
    said = "_linalg_check_errors.default' has effects"
    falls_back(lambda x: torch.linalg.ldl_factor(x)[0], torch.eye(3), message=said)


def test_random_numbers_are_left_to_eager() -> None:
    made = compiled(lambda x: x + torch.rand(3))
    with pytest.warns(FallbackWarning, match=r"operator 'aten.rand.default' draws random"):
        made(torch.zeros(3))
    assert bool((made(torch.zeros(3)) != made(torch.zeros(3))).any())


def test_a_wrong_answer_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*_: Any) -> Any:
        raise WrongAnswerError("output 'output' differs from the reference at [0]")

    monkeypatch.setattr(torch_region, "compiled", wrong)
    falls_back(lambda x: x + 1, torch.ones(3), message="differs from the reference")


def test_options_are_those_of_compile() -> None:
    layer = nn.Linear(4, 3)
    made = compiled(layer, options={"dtype": "bf16", "threads": 1})
    x = torch.randn(2, 4)
    made(x)
    torch.testing.assert_close(made(x), layer(x), rtol=0.05, atol=0.05)
    assert bool((made(x) != layer(x)).any()), "bf16 rounds"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtyp": "bf16"}, "has no option 'dtyp'; did you mean 'dtype'"),
        ({"dtype": "bf17"}, "bf17"),
        ({"pipeline": "fold-constant"}, "did you mean 'fold-constants'"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        torch_backend(None, [], options=options)
    with pytest.raises(InputError, match="mode 'max-autotune' is of torch's own"):
        torch_backend(None, [], mode="max-autotune")


def test_the_entry_point_and_the_public_name() -> None:
    text = (Path(__file__).parent.parent / "pyproject.toml").read_text()
    value = tomllib.loads(text)["project"]["entry-points"]["torch_dynamo_backends"]["hybridc"]
    found = EntryPoint("hybridc", value, "torch_dynamo_backends").load()
    assert found is hybridc.torch_backend is torch_backend
