"""Answers of a model with open sizes, compared with its reference at several sizes."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

from hybridc.compiler import dims
from hybridc.compiler.assurance import answers, verify
from hybridc.compiler.assurance.verify import Comparison
from hybridc.compiler.delegation import opaque_values
from hybridc.compiler.model import Array, Feed, Model, open_dims, random_feed
from hybridc.compiler.session import InferenceSession

# Of all inputs together where one size is large: as in seven images of 224 by 224 pixels.
_MOST_ELEMENTS = 2**20


@dataclass(frozen=True)
class Sized:
    """Random inputs of one set of sizes, and the reference's outputs."""

    sizes: dims.Sizes
    feed: Feed
    wanted: Sequence[Array]


@dataclass
class References:
    """The reference's outputs at sizes to try, computed once for all that is compared with them."""

    found: list[Sized] = field(default_factory=list[Sized])

    def of(self, model: Model, seed: int) -> list[Sized]:
        """Inputs and outputs at each of `dims.trials` and `dims.large`."""
        if not self.found:
            found = open_dims(model.inputs)

            def affordable(sizes: dims.Sizes) -> bool:
                return sum(prod(s.at(sizes).fixed) for s in model.inputs) <= _MOST_ELEMENTS

            for sizes in [*dims.trials(found), *dims.large(found, affordable)]:
                feed = random_feed(model.inputs, seed, sizes)
                self.found.append(Sized(sizes, feed, model.reference(feed)))
        return self.found


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
        got = session.run(None, trial.feed)
        found.append(answers.compare(model, [trial.feed], [trial.wanted], [got], how, check))
    return worst(*found)


def worst(*found: Sequence[Comparison]) -> tuple[Comparison, ...]:
    """The worse of each output's comparisons."""
    return tuple(opaque_values.worst(pair) for pair in zip(*found, strict=True))


def described(feeds: Sequence[Feed], model: Model, trials: Sequence[Sized]) -> dict[str, Any]:
    """For a certificate: the sizes at which calls were timed, and answers compared."""
    if not open_dims(model.inputs):
        return {}
    given = [dims.bind(_shapes(model, feed)) for feed in feeds]
    compared: list[dict[str, int]] = []
    for sizes in [*given, *(dict(trial.sizes) for trial in trials)]:
        if sizes not in compared:
            compared.append(sizes)
    return {"sizes": {"measured_at": given[0], "compared_at": compared if trials else []}}


def _shapes(model: Model, feed: Feed) -> Any:
    return {spec.name: (spec.shape, feed[spec.name].shape) for spec in model.inputs}
