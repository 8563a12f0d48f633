"""What an artifact is held to: a model's answers on some inputs, tolerances and a contract."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from hybridc.compiler.assurance import samples
from hybridc.compiler.assurance.calibration import Feeds
from hybridc.compiler.assurance.contract import Contract
from hybridc.compiler.assurance.open_answers import References
from hybridc.compiler.assurance.slowest import Slowest
from hybridc.compiler.assurance.verify import How
from hybridc.compiler.model import Array, Model
from hybridc.compiler.orchestration.time_budget import TimeBudget


@dataclass(frozen=True)
class Trial:
    """A model, the inputs to try it on, and the reference's outputs for each of them.

    `wanted` is empty where nobody asks for them.  `data` tells what the feeds are, and
    has other data to find ranges on.  `references` holds what is wanted at other sizes, where some
    are open, and `slowest` which of the feeds calls are timed on.
    """

    model: Model
    feeds: Feeds
    wanted: Sequence[Sequence[Array]]
    data: samples.Samples | None = None
    references: References = field(default_factory=References)
    slowest: Slowest = field(default_factory=Slowest)

    def unseen(self) -> "Trial":
        """The same on the feeds alone that gave no ranges, for what was made with these."""
        if self.data is None or self.data.apart is None:
            return self
        feeds = [self.feeds[i] for i in self.data.apart]
        wanted = [self.wanted[i] for i in self.data.apart] if self.wanted else self.wanted
        data = replace(self.data, feeds=feeds, told=samples.SPLIT, apart=None)
        return replace(self, feeds=feeds, wanted=wanted, data=data)


@dataclass(frozen=True)
class Terms:
    """What is demanded of an artifact: `how` near its answers have to be, and a contract.

    `verify` is false where no output is to be compared; `timed` asks for times without a limit too;
    `time_budget` covers all of it.  `calibrated` says for the certificate which other data gave the
    ranges of quantisation; None where there were none.
    """

    verify: bool
    how: How
    contract: Contract
    data: str  # what the inputs are, for the certificate
    seed: int = 0
    timed: bool = False
    time_budget: TimeBudget = field(default_factory=TimeBudget)
    calibrated: Mapping[str, Any] | None = None

    @property
    def clocked(self) -> bool:
        """Whether calls are timed."""
        return self.timed or self.contract.timed

    @property
    def demanding(self) -> bool:
        """Whether the artifact has to run here, whatever it takes."""
        contract = self.contract
        return self.clocked or contract.validate is not None or bool(contract.min_accuracy)

    @property
    def tolerances(self) -> dict[str, float]:
        """Those that were given, by name, for the certificate."""
        given = {"rtol": self.how.rtol, "atol": self.how.atol}
        return {name: value for name, value in given.items() if value is not None}
