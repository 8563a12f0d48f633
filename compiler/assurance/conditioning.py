"""How far the reference itself moves when its inputs change by one rounding.

An output that is the small difference of large sums cannot be known to a fixed tolerance: the next
input to the one that was given, as near as fp32 can tell two apart, has another answer.  What lies
within that is no error.  This is the condition of the model at an input, estimated from samples
(C. S. Kenney, A. J. Laub: Small-sample statistical condition estimates, SIAM J. Sci. Comput. 15,
1994); faults of kernels are larger by orders of magnitude.

A model that sorts or selects chooses otherwise where two are alike up to rounding, as the boxes of
neighbouring pixels often are.  Inputs move such a pair together, so that the reference is asked
again with weights that are off by some roundings, as sums in another order are (J. H. Wilkinson:
Rounding Errors in Algebraic Processes, 1963).

In a reduced precision a model that sorts, selects or counts makes other choices where two are
nearly alike.  There the reference chooses otherwise too, when its inputs are off by as much as
outputs may be; one that only computes does not move beyond its tolerance, and faults stay faults.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from hybridc.compiler.assurance import reordering, verify
from hybridc.compiler.assurance.difference import Floats
from hybridc.compiler.assurance.verify import Comparison
from hybridc.compiler.model import Array, Feed, Model
from hybridc.compiler.runtime import carriers

_RUNS = 8
# So many times as many with other weights, the later ones if rows change places: of two scores that
# are one rounding apart a run exchanges the places in a quarter of all cases.
_TURNS = 4
# Winograd's filtering rounds more than direct convolutions: ResNet-50 is 2 to 3 times as far from
# float64 as its reference.  Of thousands of elements the largest error is some deviations out, and
# the largest of eight movements of an element may be small by chance.
_FACTOR = 10.0
# Of many outputs of a reduced precision the one that is off the most is so by four deviations.
_DEVIATIONS = 4.0
# What weights are off by: a hundredth of what outputs may be, and a hundred roundings, so that of
# two scores that differ in their last bits either is the larger in some of the runs.
_SHARE = verify.TOLERANCES["float32"][0] / 100
# Integers that numbers were rounded to are off by a step, or two of a difference; large ones by
# what they are rounded from.
_STEPS, _SHARE_OF_INTEGERS = 2.0, 1e-4
_QUANTISED = 2  # bytes
# Elements of an answer that is kept beside others; a larger one is no list of choices.
_MOST_KEPT = 2**20


@dataclass(frozen=True)
class Sample:
    """One input with what the reference and the artifact make of it, and one output looked at."""

    feed: Feed
    reference: Sequence[Array]
    artifact: Sequence[Array]
    index: int

    @property
    def wanted(self) -> Array:
        """The output of the reference."""
        return self.reference[self.index]

    @property
    def got(self) -> Array:
        """The output of the artifact."""
        return self.artifact[self.index]


def settle(
    model: Model, index: int, samples: Iterable[Sample], found: Comparison, how: verify.How
) -> Comparison:
    """Compare output `index` again where `found` is wrong, with what its condition allows.

    The first sample that stays wrong ends it, so that a faulty kernel costs few calls of the
    reference.  Tolerances that the user set are kept to, and so are the usual ones by models
    without inputs of fp32.
    """
    given = how.rtol is not None or how.atol is not None
    if found.ok or given or not _continuous(model):
        return found
    if (lower := how.reduced) is not None:
        return _chosen(model, index, samples, found, how, lower.share / _DEVIATIONS)
    exact = np.dtype(carriers.carrier(found.dtype)).kind in "biu"
    return _computed(model, index, samples, found) if exact or found.dtype == "float32" else found


def _computed(model: Model, index: int, samples: Iterable[Sample], found: Comparison) -> Comparison:
    """What each element may be off by, in fp32."""
    settled = _right(found)
    for sample in samples:
        if verify.compare(found.output, sample.wanted, sample.got).ok:
            continue
        if not repeats(model, index, sample):
            return found
        for turn, (answers, slack) in enumerate(_allowances(model, sample)):
            rows = reordering.excused(index, sample.reference, sample.artifact, answers)
            if rows is not None and rows > 0:
                settled = replace(settled, reordered=settled.reordered + rows)
                break
            again = verify.compare(found.output, sample.wanted, sample.got, slack=slack)
            if rows is None and again.ok:
                settled = replace(settled, condition=max(settled.condition, again.condition))
                break
            if rows is None and turn:
                return found
        else:
            return found
    return settled


def repeats(model: Model, index: int, sample: Sample) -> bool:
    """Whether the reference gives the same answer again: one that is drawn has no condition."""
    again = model.reference(sample.feed)[index]
    same_shape = again.shape == sample.wanted.shape
    return same_shape and verify.compare("", sample.wanted, again).ok


def _chosen(  # noqa: PLR0913, PLR0917 - an output, and all that decides how near it has to be
    model: Model,
    index: int,
    samples: Iterable[Sample],
    found: Comparison,
    how: verify.How,
    share: float,
) -> Comparison:
    """How many elements may differ in a reduced precision, and by how much of the direction.

    As many, about, as in the reference with inputs that are off by a `share` of each.
    """
    settled = _right(found)
    for sample in samples:
        tried = verify.compare(found.output, sample.wanted, sample.got, how)
        if tried.ok:
            continue
        if not repeats(model, index, sample):
            return found
        moved = _choices(model, index, sample, how, share)
        excused = _FACTOR * sum(each.differing for each in moved) / _RUNS
        turned = _FACTOR * sum(1 - each.cosine for each in moved) / _RUNS
        if tried.differing > excused or 1 - tried.cosine > max(turned, 1 - tried.min_cosine):
            return found
        settled = replace(settled, excused=settled.excused + max(1, tried.differing))
    return settled


def _choices(
    model: Model, index: int, sample: Sample, how: verify.How, share: float
) -> list[Comparison]:
    """How the reference's answers differ from each other, its inputs off as outputs may be."""
    rng = np.random.default_rng(0)
    answers = (model.reference(disturbed(sample.feed, share, rng))[index] for _ in range(_RUNS))
    return [
        verify.compare("", sample.wanted, answer, how)
        for answer in answers
        if answer.shape == sample.wanted.shape
    ]


def _right(found: Comparison) -> Comparison:
    """The comparison without what it found."""
    return replace(found, differing=0, first=None, wanted=None, got=None, min_cosine=-1.0)


def disturbed(feed: Feed, share: float, rng: np.random.Generator) -> dict[str, Any]:
    """The feed with each number of fp32 off by up to such a share of itself."""
    return {
        name: _off(value, share, rng) if _is_float(value) else value for name, value in feed.items()
    }


def _off(value: Array, share: float, rng: np.random.Generator) -> Array:
    """Each number off by up to such a share of itself."""
    off: Array = (value * rng.uniform(1 - share, 1 + share, value.shape)).astype(np.float32)
    return off


def _allowances(model: Model, sample: Sample) -> Iterator[tuple[list[Sequence[Any]], Floats]]:
    """Answers of the reference, and by how much each element may be off beside its tolerance.

    First of inputs that change by one rounding, then of weights that are off by more, too, if the
    reference can change them: a choice has no size that could be multiplied for safety.
    """
    rng = np.random.default_rng(0)
    near = _Kept(model.reference(nudged(sample.feed, rng)) for _ in range(_RUNS))
    moved = _FACTOR * _movement(sample, near)
    yield (every := near.kept), _plausible(sample, moved, near.kept)
    if (rounded := getattr(model.reference, "rounded", None)) is None:
        return
    for turn in range(_TURNS):
        seeds = range(1 + turn * _RUNS, 1 + (turn + 1) * _RUNS)
        others = (rounded(lambda weight: _off(weight, _SHARE, rng), 1000 * n) for n in seeds)
        found = _Kept(other(nudged(sample.feed, rng)) for other in others if other is not None)
        moved = np.maximum(moved, _movement(sample, found))
        every = every + found.kept
        yield every, _plausible(sample, moved, every)


@dataclass
class _Kept:
    """Answers that come one by one, and are kept where they are small."""

    answers: Iterable[Sequence[Any]]
    kept: list[Sequence[Any]] = field(default_factory=list[Sequence[Any]])

    def __iter__(self) -> Iterator[Sequence[Any]]:
        for answer in self.answers:
            if sum(array.size for array in answer if isinstance(array, np.ndarray)) <= _MOST_KEPT:
                self.kept.append(answer)
            yield answer


def _plausible(sample: Sample, moved: Floats, answers: Sequence[Sequence[Any]]) -> Floats:
    """A movement; of integers none that is longer than one of a number that was rounded to them.

    What moves further was chosen, as a class is, and has to be what an answer chooses: between two
    choices lie others.  Integers of few bits are numbers of a quantised model.
    """
    if sample.wanted.dtype.kind not in "biu" or sample.wanted.dtype.itemsize <= _QUANTISED:
        return moved
    wanted, got = (each.astype(np.float64) for each in (sample.wanted, sample.got))
    most = np.maximum(_STEPS, _SHARE_OF_INTEGERS * np.abs(wanted))
    chosen = np.zeros(wanted.shape, bool)
    for answer in answers:
        if (other := answer[sample.index]).shape == wanted.shape:
            chosen |= other == sample.got
    return np.where(chosen, np.abs(got - wanted), np.where(moved <= most, moved, 0.0))


def _movement(sample: Sample, answers: Iterable[Sequence[Array]]) -> Floats:
    """How far answers move from the one that is wanted."""
    wanted, index = sample.wanted, sample.index
    moved = np.zeros(wanted.shape)
    for answer in answers:
        if answer[index].shape != wanted.shape:
            continue
        with np.errstate(invalid="ignore"):  # the same infinity twice did not move
            moved = np.fmax(moved, np.abs(answer[index].astype(np.float64) - wanted))
    moved = np.where(np.isfinite(moved), moved, 0.0)
    if moved.ndim and moved.size and wanted.dtype.kind == "f":
        # An element that hardly moved by chance is no better known than its row.
        moved = np.maximum(moved, np.median(moved, axis=-1, keepdims=True))
    return moved


def nudged(feed: Feed, rng: np.random.Generator) -> dict[str, Any]:
    """The feed with each number of fp32 moved to one of its two neighbours, or left."""
    return {name: _nudged(value, rng) for name, value in feed.items()}


def _nudged(value: Any, rng: np.random.Generator) -> Any:
    if not _is_float(value):
        return value
    towards = rng.choice(np.array([-np.inf, np.inf], np.float32), value.shape)
    stays = (rng.random(value.shape) < 1 / 3) | (value == 0)  # zeros are often padding or masks
    return np.where(stays, value, np.nextafter(value, towards))


def _continuous(model: Model) -> bool:
    return any(spec.dtype == "float32" for spec in model.inputs)


def _is_float(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype == np.float32
