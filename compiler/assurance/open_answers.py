"""Answers of a model with open sizes, compared with its reference at several sizes."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import numpy as np

from hybridc.compiler import dims
from hybridc.compiler.assurance import answers, calibration, trial_sizes, verify
from hybridc.compiler.assurance.verify import Comparison
from hybridc.compiler.delegation import opaque_values
from hybridc.compiler.errors import InputError
from hybridc.compiler.model import Array, Feed, Model, open_dims, random_feed
from hybridc.compiler.runtime.session import InferenceSession

# Of all inputs together where one size is large: as in seven images of 224 by 224 pixels.
_MOST_ELEMENTS = 2**20


@dataclass(frozen=True)
class Sized:
    """Random inputs of one set of sizes, and the reference's outputs of each."""

    sizes: dims.Sizes
    feeds: Sequence[Feed]
    wanted: Sequence[Sequence[Array]]


@dataclass
class References:
    """The reference's outputs at sizes to try, computed once for all that is compared with them."""

    found: list[Sized] = field(default_factory=list[Sized])

    def of(self, model: Model, seed: int) -> list[Sized]:
        """Inputs and outputs at each of `trial_sizes.trials` and `trial_sizes.large`.

        There are several samples of sizes at which an output has few elements.
        """
        if not self.found:
            for inputs in model.ways or (model.inputs,):
                self.found += _of(replace(model, inputs=inputs), seed)
        return self.found


def _of(model: Model, seed: int) -> Iterator[Sized]:
    """One way to call the model at sizes of its own."""
    found = open_dims(model.inputs)

    def affordable(sizes: dims.Sizes) -> bool:
        return sum(prod(s.at(sizes).fixed) for s in model.inputs) <= _MOST_ELEMENTS

    for sizes in trial_sizes.trials(found):
        yield _near(model, seed, sizes)
    for ladder in trial_sizes.large(found, affordable):
        yield from _first_that_runs(model, seed, ladder)


def _near(model: Model, seed: int, sizes: dims.Sizes) -> Sized:
    """At sizes; where the reference does not run, at some with one as it is measured.

    Raises InputError where it runs at none of these.
    """
    try:
        return _drawn(model, seed, sizes)
    except InputError:
        measured = dims.nominal(open_dims(model.inputs))
        others = [{**sizes, name: size} for name, size in measured.items() if sizes[name] != size]
        if found := _first_that_runs(model, seed, others):
            return found[0]
        raise


def _first_that_runs(model: Model, seed: int, ladder: Sequence[dims.Sizes]) -> list[Sized]:
    """The first of large sizes at which the reference runs; none where it runs at none.

    A model may have tables, such as of positions, that end before sizes which nobody bounded.
    """
    for sizes in ladder:
        with suppress(InputError):
            return [_drawn(model, seed, sizes)]
    return []


def _drawn(model: Model, seed: int, sizes: dims.Sizes) -> Sized:
    """As many samples as it takes for each output of floats to have some elements."""
    feed = random_feed(model.inputs, seed, sizes)
    first = model.reference(feed)
    count = calibration.enough(each.size for each in first if _is_floats(each))
    _, *others = calibration.seeds(seed, count)
    feeds = [feed, *(random_feed(model.inputs, each, sizes) for each in others)]
    return Sized(sizes, feeds, [first, *map(model.reference, feeds[1:])])


def _is_floats(output: Any) -> bool:
    return isinstance(output, np.ndarray) and output.dtype.kind not in "biuOSU"


def compare(
    session: InferenceSession,
    model: Model,
    trials: Sequence[Sized],
    how: verify.How,
    check: answers.Check,
) -> tuple[Comparison, ...]:
    """The worst comparison of each output over all sizes; `how` are tolerances and precision."""
    found: list[Sequence[Comparison]] = []
    for trial in trials:
        got = [calibration.owned(session.run(None, feed)) for feed in trial.feeds]
        found.append(answers.compare(model, trial.feeds, trial.wanted, got, how, check))
    return worst(*found)


def worst(*found: Sequence[Comparison]) -> tuple[Comparison, ...]:
    """The worse of each output's comparisons."""
    return tuple(opaque_values.worst(pair) for pair in zip(*found, strict=True))


def described(
    feeds: Sequence[Feed], model: Model, trials: Sequence[Sized], timed: Feed | None = None
) -> dict[str, Any]:
    """For a certificate: the sizes at which calls were timed, and answers compared.

    `timed` is the feed that they were timed on, the first unless one is given.
    """
    if not open_dims(model.inputs):
        return {}
    given = [dims.bind(_shapes(model, feed)) for feed in feeds]
    compared: list[dict[str, int]] = []
    for sizes in [*given, *(dict(trial.sizes) for trial in trials)]:
        if sizes not in compared:
            compared.append(sizes)
    measured = given[0] if timed is None else dims.bind(_shapes(model, timed))
    return {"sizes": {"measured_at": measured, "compared_at": compared if trials else []}}


def _shapes(model: Model, feed: Feed) -> Any:
    return {spec.name: (spec.shape, feed[spec.name].shape) for spec in model.inputs}
