"""Which samples calibrate, and which verify and measure: never the same ones."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hybridc.compiler.assurance import calibration
from hybridc.compiler.assurance.calibration import Feeds
from hybridc.compiler.assurance.contract import fewest_samples
from hybridc.compiler.configuration import plans
from hybridc.compiler.configuration.plans import Plan
from hybridc.compiler.errors import InputError
from hybridc.compiler.model import Array, Feed, Model, Reference
from hybridc.compiler.orchestration import precisions, stages
from hybridc.compiler.orchestration.time_budget import OutOfTimeError, at_leisure
from hybridc.compiler.quantization import activations

_EXAMPLES = "the example inputs"
SPLIT = "calibration data, split"


@dataclass(frozen=True)
class Samples:
    """Feeds to verify and measure on, what they are, and the calibration data beside them.

    `calibration` is None where no stage of the compilation asks for ranges.  So many of
    the first feeds are `drawn` at random where the example inputs of the model follow.  `apart` are
    the places of the feeds that gave no ranges, which alone verify what was made with them; None
    where none gave any.
    """

    feeds: Feeds
    told: str
    calibration: activations.Calibration | None = None
    calibrated: Mapping[str, Any] | None = None
    drawn: int = 0
    apart: tuple[int, ...] | None = None

    def answered(
        self, reference: Reference, check: Callable[[str], None] = at_leisure
    ) -> tuple["Samples", list[list[Array]]]:
        """The reference's answers; random inputs that it refuses are left out if others are left.

        Raises InputError where there are none, and what `check` raises, which is asked between
        samples whether there is time for what it is told.
        """

        def answer(feed: Feed) -> list[Array]:
            check("the reference has answered all samples")
            return calibration.owned(reference(feed))

        try:
            return self, list(map(answer, self.feeds))
        except OutOfTimeError:
            raise
        except InputError:
            if not self.drawn:
                raise
        left = replace(self, feeds=self.feeds[self.drawn :], told=_EXAMPLES, drawn=0)
        return left, list(map(answer, left.feeds))


def samples(model: Model, plan: Plan) -> Samples:
    """Choose among the user's data, or draw random ones, by the seed of the options.

    Beside random ones stand the example inputs that a model came with.
    Data for both are split, a half each at random; two samples are the least that can be.  What
    takes no ranges is verified on all of them.  Where
    validation data are given, all of the calibration data calibrate.  A model that is quantised
    already is not calibrated.  Raises InputError where the data do not fit the model.
    """
    options, inputs = plan.options, model.inputs
    given = None if plan.data is None else calibration.feeds(plan.data, inputs)
    apart: Feeds | None = None
    if plan.validation is not None:
        apart = calibration.feeds_for("validation", plan.validation, inputs)
    if not stages.calibrates(options) or plans.written_in(model) == "int8":
        feeds = apart or given
        told = "validation data" if apart else "calibration data"
        return Samples(feeds, told) if feeds else _random(plan, model)
    if apart is not None:
        return _calibrated(apart, "validation data", given, model, options.seed)
    if given is None:
        drawn = _random(plan, model)
        made = _calibrated(drawn.feeds, drawn.told, None, model, options.seed)
        return replace(made, drawn=drawn.drawn)
    if len(given) == 1:
        return _calibrated(given, "calibration data", None, model, options.seed)
    return _split(given, model, plan)


def _split(given: Feeds, model: Model, plan: Plan) -> Samples:
    """Half of the data give ranges, the others verify; all do, where a stage needs no ranges."""
    seed = plan.options.seed
    order = np.random.default_rng(seed).permutation(len(given))
    half = min(len(given) // 2, activations.MOST)
    ours = [given[i] for i in sorted(order[:half])]
    apart = tuple(sorted(int(i) for i in order[half:]))
    if plan.calibrates:
        return _calibrated([given[i] for i in apart], SPLIT, ours, model, seed)
    return replace(_calibrated(given, "calibration data", ours, model, seed), apart=apart)


def _random(plan: Plan, model: Model) -> Samples:
    seed = plan.options.seed
    count = fewest_samples(plan.options.contract.min_accuracy)
    if plan.options.dtype not in (precisions.AUTO, precisions.FULL):
        count = max(count, calibration.enough(calibration.floats(model.outputs)))
    drawn, told = calibration.random_feeds(model.inputs, seed, count), f"random, seed {seed}"
    if not model.examples:
        return Samples(drawn, told)
    feeds = [*drawn, *map(dict, model.examples)]
    return Samples(feeds, f"{told}, and {_EXAMPLES}", drawn=count)


def _calibrated(feeds: Feeds, told: str, given: Feeds | None, model: Model, seed: int) -> Samples:
    """The feeds, with the calibration on `given`, or on random inputs of another seed."""
    if given is None:
        source, chosen = (
            f"random, drawn by seed {seed}",
            activations.random_feeds(model.inputs, seed),
        )
    else:
        source, chosen = "calibration data", given[: activations.MOST]
    made = activations.of_feeds(chosen, model.inputs, source, given=given is not None, seed=seed)
    described = {
        "data": source,
        "samples": len(chosen),
        "data_blake3": calibration.digest(chosen),
    }
    return Samples(feeds, told, made, described)
