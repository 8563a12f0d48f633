"""Candidates that nobody compiled, for tests of what is decided by their numbers alone."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hybridc.compiler.anatomy.work import CONVOLUTION, Operator
from hybridc.compiler.assurance.confidence import Estimate
from hybridc.compiler.assurance.contract import Contract, Measured
from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.hardware.roofline import Roofs
from hybridc.compiler.orchestration import cascade
from hybridc.compiler.orchestration.candidates import Means
from hybridc.compiler.orchestration.expected_gains.gains import Facts
from hybridc.compiler.orchestration.expected_gains.history import Past
from hybridc.compiler.orchestration.steering import Steering
from hybridc.compiler.orchestration.time_budget import TimeBudget
from hybridc.compiler.quantization.sensitivity import Lowered
from hybridc.compiler.tuning.options import Tuning

exactly = Estimate.exactly
LOOSE = Contract(min_accuracy={"cosine": 0.999})
TUNING = Tuning()
FAST = Contract("5ms", min_accuracy={"cosine": 0.999})
# Much arithmetic, on a machine that does twice as much in bf16.
RATES = {"fp32": 1e11, "bf16": 2e11, "fp16": 1e11, "int8": 4e11}
ROOFS = Roofs(RATES, 1e11, 1e11, 0, (), "made up")
CONVOLUTIONS = Operator("nn.conv2d", CONVOLUTION, 2e9, 0, 1e6, 1e6)
FACTS = Facts((CONVOLUTIONS,), ROOFS, latency=0.02, machine="a machine")


@dataclass(frozen=True)
class Candidate:
    """A latency in ms and a cosine."""

    milliseconds: float
    cosine: float = 1.0
    sensitive: Lowered | None = None

    @property
    def measured(self) -> Measured:
        """As if it had been measured."""
        time = exactly(self.milliseconds / 1e3)
        return Measured(time, accuracy={"cosine": exactly(self.cosine)})


@dataclass
class Clock:
    """A clock that goes on when it is told to."""

    seconds: float = 0.0

    def __call__(self) -> float:
        """What it shows."""
        return self.seconds


@dataclass
class Maker:
    """Makes candidates by the names of the stages that are in the options: `exact`, `tuned+bf16`.

    `seconds` is how long each takes on `clock`; tuning takes what it may.
    """

    found: dict[str, Candidate | Exception]
    clock: Clock = field(default_factory=Clock)
    seconds: float = 1.0
    asked: list[str] = field(default_factory=list[str])
    budgets: list[str | None] = field(default_factory=list[Any])
    prepared: list[list[str]] = field(default_factory=list[Any])

    def attempt(self, options: Options) -> Candidate:
        """What the options give."""
        name = name_of(options)
        self.asked.append(name)
        self.clock.seconds += self.seconds
        if options.tuning is not None:
            self.budgets.append(options.tuning.budget)
            self.clock.seconds += options.tuning.seconds() or 0.0
        result = self.found[name]
        if isinstance(result, Exception):
            raise result
        return result

    def prepare(self, given: Sequence[Options]) -> None:
        """Note what would be compiled side by side."""
        self.prepared.append([name_of(options) for options in given])


def name_of(options: Options) -> str:
    """The stages that options are made of."""
    parts = ["tuned"] * bool(options.tuning) + [options.dtype] * (options.dtype != "fp32")
    parts += ["bare"] * (options.pipeline == "schedule")
    return "+".join(parts) or "exact"


def go(
    steering: Steering,
    maker: Maker,
    contract: Contract = LOOSE,
    *,
    facts: Facts | None = FACTS,
    past: Sequence[Past] = (),
    tuning: Tuning | None = TUNING,
    pipeline: str = "fuse-attention,schedule",
    plugins: Sequence[Path] = (),
) -> cascade.Cascaded[Candidate]:
    """Run a cascade over made-up candidates, in made-up time."""
    options = Options(
        contract=contract, tuning=tuning, steering=steering, pipeline=pipeline, plugins=plugins
    )
    means: Means[Candidate] = Means(maker.attempt, maker.prepare, lambda _: facts)
    time_budget = TimeBudget(steering.budget, now=maker.clock)
    return cascade.run(options, means, time_budget, past)


def verdicts(found: cascade.Cascaded[Any]) -> dict[str, str]:
    """What became of each stage."""
    return {each.stage: each.verdict for each in found.decisions}


def all_better() -> Maker:
    """Each stage takes something off, and together they take the most."""
    return Maker(
        {
            "exact": Candidate(8),
            "tuned": Candidate(7),
            "bf16": Candidate(4, 0.9995),
            "bare": Candidate(8.5),
            "tuned+bf16": Candidate(3.5, 0.9995),
            "tuned+bare": Candidate(7.5),
            "bf16+bare": Candidate(4.2),
            "tuned+bf16+bare": Candidate(3.6, 0.9995),
        }
    )
