"""What is said of limits: their names, kinds and numbers."""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from test_contract import hits

from hybridc.cli import main as entry
from hybridc.compiler.assurance.confidence import Estimate
from hybridc.compiler.assurance.contract import Contract, Measured
from hybridc.compiler.assurance.limits import parse_limits
from hybridc.compiler.configuration import plans
from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.errors import InputError
from hybridc.compiler.orchestration import cascade
from hybridc.compiler.orchestration.advice import advice
from hybridc.compiler.orchestration.steering import Steering
from hybridc.compiler.text.units import format_rate
from hybridc.compiler.tuning.options import Tuning


def test_numbers_of_numpy_are_numbers() -> None:
    limits = Contract(np.float32(0.005), min_accuracy={"cosine": np.float64(0.5)})  # pyright: ignore[reportArgumentType]
    assert limits.max_latency == np.float32(0.005)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"min_accuracy": {"COSINE": 0.9}}, "did you mean 'cosine'"),
        ({"min_accuracy": {"snr": math.inf}}, "accuracy snr is a number that is finite, got inf"),
        ({"min_accuracy": {"max-abs": math.inf}}, "max-abs is a number from 0 on, got inf"),
        ({"max_drop": {"hits": -1}, "validate": hits}, "drop of hits is a number from 0 on"),
    ],
    ids=lambda value: str(value).replace(str(hits), "hits"),
)
def test_names_and_numbers_are_told_as_they_were_meant(given: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Contract(**given)


def test_limits_say_what_they_are_of() -> None:
    with pytest.raises(InputError, match="weights 'neural' is a number, got 'x'"):
        parse_limits(["neural=x"], "weights")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"rtol": float("nan")}, "rtol must be a number of 0 or more, got nan"),
        ({"rtol": float("inf")}, "rtol must be a number of 0 or more, got inf"),
        ({"atol": -1.0}, "atol must be a number of 0 or more, got -1"),
        ({"seed": -1}, "a seed must be a whole number of 0 or more, got -1"),
        ({"threads": 5000}, "threads=5000 requested, but this process may use only"),
    ],
)
def test_tolerances_and_seeds_that_are_none_are_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        plans.check(Options(**given))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--max-latency", "5ms", "--max-latency", "p99<=8ms"], "--max-latency is given twice"),
        (["--max-size", "5MB", "--max-size=6MB"], "--max-size is given twice"),
        (["--validate", "a:b", "--validate", "c:d"], "--validate is given twice"),
        (["--keep-best", "--keep-best", "--budget", "1s", "--budget", "2s"], "no such file"),
    ],
)
def test_no_limit_takes_the_place_of_another(
    given: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert entry.run(["compile", "missing.onnx", *given]) == 2
    assert said in capsys.readouterr().err


def test_what_the_first_stage_does_is_not_missing() -> None:
    """Without a limit on time kernels are tuned at once."""
    strict = Steering(components=("neural",), strict=True)
    cascade.check(Options(tuning=Tuning(1), steering=strict))
    with pytest.raises(InputError, match="neural: it has nothing to do"):
        cascade.check(Options(steering=strict))
    lossy = Steering(components=("precision",), strict=True)
    with pytest.raises(InputError, match="and one on time, memory or size"):
        cascade.check(Options(contract=Contract(min_accuracy={"cosine": 0.9}), steering=lossy))


def test_many_calls_a_second_are_told_without_powers() -> None:
    assert (format_rate(1.25), format_rate(13404.2)) == ("1.25 calls/s", "13404 calls/s")


def test_what_only_may_break_a_limit_is_told_beside_it() -> None:
    limits = Contract("6us", min_accuracy={"cosine": 0.9})
    perfect = {"cosine": Estimate.exactly(1.0)}
    found: Any = SimpleNamespace(
        measured=Measured(Estimate(5e-6, 4e-6, 6.5e-6), accuracy=perfect), sensitive=None
    )
    (told,) = advice(Options(contract=limits), found, [], [])
    assert told == "nearest: latency 5 us, perhaps 6.5 us, of 6 us at cosine 1"
