"""Compare all answers of a model with its reference's: each output, over all samples."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from hybridc.compiler.assurance import verify
from hybridc.compiler.assurance.conditioning import Sample, repeats, settle
from hybridc.compiler.assurance.verify import Comparison
from hybridc.compiler.delegation import opaque_values
from hybridc.compiler.errors import InputError, WrongAnswerError
from hybridc.compiler.model import Array, Feed, Model, OpaqueSpec
from hybridc.compiler.orchestration.time_budget import at_leisure

Answers = Sequence[Sequence[Array]]  # by sample, then by output
Check = Callable[[str], None]
_COMPARED = "all answers are compared"


def compare(  # noqa: PLR0913, PLR0917 - two answers, and all that decides how near they are
    model: Model,
    feeds: Sequence[Feed],
    wanted: Answers,
    got: Answers,
    how: verify.How,
    check: Check = at_leisure,
) -> tuple[Comparison, ...]:
    """Compare each output; of what has no one shape over the samples, the worst sample.

    Raises WrongAnswerError where there are more or fewer outputs, or shapes or dtypes differ, and
    what `check` raises, which is asked on the way whether there is time for what it is told.
    """
    count = len(model.outputs)
    if wrong := {len(sample) for sample in got} - {count}:
        raise WrongAnswerError(f"{wrong.pop()} outputs where the model has {count}")
    found: list[Comparison] = []
    for index in range(count):
        samples = [Sample(*each, index) for each in zip(feeds, wanted, got, strict=True)]
        found.append(_compared(model, index, samples, how, check))
    return tuple(found)


def check(
    model: Model,
    feeds: Sequence[Feed],
    wanted: Answers,
    found: Sequence[Comparison],
    precision: str,
) -> None:
    """Raise WrongAnswerError for the first output that is wrong (see `verify.check`).

    Raises InputError instead where the model itself gives another answer when it is asked again.
    """
    try:
        verify.check(found, precision)
    except WrongAnswerError as error:
        names = [spec.name for spec in model.outputs]
        index = names.index(next(each.output for each in found if not each.ok))
        first = Sample(feeds[0], wanted[0], (), index)
        if isinstance(model.outputs[index], OpaqueSpec) or repeats(model, index, first):
            raise
        raise InputError(
            f"output {names[index]!r} of the model itself is another each time, by random numbers "
            "or a state, so that no answer can be compared: --verify off compiles it unverified"
        ) from error


def _compared(
    model: Model, index: int, samples: Sequence[Sample], how: verify.How, check: Check
) -> Comparison:
    spec = model.outputs[index]
    if isinstance(spec, OpaqueSpec):
        timely = _in_time(samples, check)
        each = [opaque_values.compare(spec.name, e.wanted, e.got, how) for e in timely]
        return opaque_values.worst(each)
    if len({each.wanted.shape for each in samples}) > 1:
        alone = [_together(model, index, [each], how, check) for each in samples]
        return opaque_values.worst(alone)
    return _together(model, index, samples, how, check)


def _together(
    model: Model, index: int, samples: Sequence[Sample], how: verify.How, check: Check
) -> Comparison:
    check(_COMPARED)
    wanted, got = _stacked([e.wanted for e in samples]), _stacked([e.got for e in samples])
    found = verify.compare(model.outputs[index].name, wanted, got, how)
    return settle(model, index, _in_time(samples, check), found, how)


def _in_time(samples: Sequence[Sample], check: Check) -> Iterator[Sample]:
    """The samples, while there is time."""
    for sample in samples:
        check(_COMPARED)
        yield sample


def _stacked(samples: Sequence[Array]) -> Array:
    return samples[0] if len(samples) == 1 else np.stack(samples)
