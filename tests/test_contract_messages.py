"""What is said of limits: their names, kinds and numbers."""

from typing import Any

import numpy as np
import pytest
from test_contract import hits

from hybridc.compiler.assurance.contract import Contract
from hybridc.compiler.assurance.limits import parse_limits
from hybridc.compiler.errors import InputError


def test_numbers_of_numpy_are_numbers() -> None:
    limits = Contract(np.float32(0.005), min_accuracy={"cosine": np.float64(0.5)})  # pyright: ignore[reportArgumentType]
    assert limits.max_latency == np.float32(0.005)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"min_accuracy": {"COSINE": 0.9}}, "did you mean 'cosine'"),
        ({"max_drop": {"hits": -1}, "validate": hits}, "drop of hits is a number from 0 to inf"),
    ],
    ids=lambda value: str(value).replace(str(hits), "hits"),
)
def test_names_and_numbers_are_told_as_they_were_meant(given: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Contract(**given)


def test_limits_say_what_they_are_of() -> None:
    with pytest.raises(InputError, match="weights 'neural' is a number, got 'x'"):
        parse_limits(["neural=x"], "weights")
