"""What tests of the backend for torch.compile share."""

import warnings
from typing import Any

import pytest

from hybridc.compiler.dynamo.torch_backend import FallbackWarning, torch_backend

torch = pytest.importorskip("torch")


def compiled(function: Any, **options: Any) -> Any:
    return torch.compile(function, backend=torch_backend, **options)


def agree(function: Any, *calls: tuple[Any, ...], made: Any = None) -> None:
    """Eager and compiled code give the same, twice for each call; nothing falls back."""
    made = compiled(function) if made is None else made
    with warnings.catch_warnings():
        warnings.simplefilter("error", FallbackWarning)
        for args in calls:
            for _ in range(2):
                same(made(*args), function(*args))


def same(got: Any, wanted: Any) -> None:
    torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-4, check_stride=True)


def falls_back(function: Any, *args: Any, message: str) -> None:
    """The answer is eager's, with one warning."""
    made = compiled(function)
    with pytest.warns(FallbackWarning, match=message) as caught:
        got = made(*args)
    assert len(caught) == 1
    same(got, function(*args))
    agree(function, args, made=made)  # and does not say so again
