"""Products that are faster as they were than in bytes, where accuracy allows all in bytes."""

from dataclasses import dataclass, replace
from typing import Any

import pytest
from test_narrowing import lowered

from hybridc.compiler.assurance.confidence import Estimate
from hybridc.compiler.assurance.contract import Contract, Measured
from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.errors import PassError
from hybridc.compiler.orchestration import cascade, prospects, stages
from hybridc.compiler.orchestration.candidates import Means
from hybridc.compiler.orchestration.steering import Steering
from hybridc.compiler.quantization.sensitivity import Lowered

_MACS = 10**6
OPERATORS = tuple(
    replace(each, macs=_MACS + i) for i, each in enumerate(lowered([1e-5] * 4).operators)
)
MILLISECOND = 1e-3


@dataclass(frozen=True)
class Made:
    """A candidate, in which these products are in bytes."""

    measured: Measured
    sensitive: Lowered | None
    narrow: bool


@dataclass
class Maker:
    """Gives 8 ms in fp32 and 4 ms in bytes; a millisecond less without the first two products.

    `worse` is added to that where they are left out.
    """

    worse: float = 0.0
    accuracy: float = 0.9999
    fails: bool = False

    def __post_init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []

    def __call__(self, options: Options) -> Made:
        """What the options come to."""
        narrow = options.dtype == "int8"
        self.asked.append(options.precise)
        if options.precise and self.fails:
            raise PassError("no such luck")
        seconds = (3e-3 + self.worse if options.precise else 4e-3) if narrow else 8e-3
        cosine = self.accuracy if options.precise else 0.9999
        found = Measured(Estimate.exactly(seconds), accuracy={"cosine": Estimate.exactly(cosine)})
        made = tuple(replace(e, lowered=e.name not in options.precise) for e in OPERATORS)
        sensitive = Lowered(made, lambda: pytest.fail("measured"), []) if narrow else None
        return Made(found, sensitive, narrow)

    def kernels(self, found: Made) -> dict[int, float]:
        """The first two products take half a millisecond longer in bytes, the third less."""
        late = (0.5, 0.5, -0.8, 0.0) if found.narrow else (0.0,) * 4
        times = zip(OPERATORS, late, strict=True)
        return {2 * each.macs: (1 + more) * MILLISECOND for each, more in times}


def go(monkeypatch: pytest.MonkeyPatch, maker: Maker) -> Any:
    monkeypatch.setattr(stages, "LOSSY", ("int8",))
    monkeypatch.setattr(prospects, "slow_halves", lambda _: frozenset())
    limits = Contract("1ms", min_accuracy={"cosine": 0.999})
    options = Options(target="avx2", threads=1, contract=limits, steering=Steering())
    found = cascade.run(options, Means(maker, kernels=maker.kernels))
    return next(each for each in found.decisions if each.stage == "int8"), found.best


def test_products_that_are_faster_as_they_were_stay_so(monkeypatch: pytest.MonkeyPatch) -> None:
    maker = Maker()
    decision, best = go(monkeypatch, maker)
    assert maker.asked == [(), (), ("conv2d-0", "conv2d-1")]
    assert decision.verdict == "kept"
    assert decision.reason == (
        "2 of 4 operators; faster as they were: conv2d-0 8x8x1x1, conv2d-1 8x8x1x1"
    )
    assert best.measured.latency.value == 3e-3
    assert decision.operators["lowered"] == 2


@pytest.mark.parametrize("maker", [Maker(worse=2e-3), Maker(accuracy=0.99), Maker(fails=True)])
def test_what_is_no_faster_or_less_accurate_or_fails_is_left(
    maker: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    decision, best = go(monkeypatch, maker)
    assert len(maker.asked) == 3
    assert (decision.verdict, decision.reason) == ("kept", "")
    assert best.measured.latency.value == 4e-3


def test_what_is_within_the_noise_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    maker = Maker()
    monkeypatch.setattr(Maker, "kernels", lambda *_: {2 * e.macs: 1e-3 for e in OPERATORS})
    decision, _ = go(monkeypatch, maker)
    assert len(maker.asked) == 2
    assert decision.reason == ""
