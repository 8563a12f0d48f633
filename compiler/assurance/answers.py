"""Compare all answers of a model with its reference's: each output, over all samples."""

from collections.abc import Sequence

import numpy as np

from hybridc.compiler.assurance import verify
from hybridc.compiler.assurance.conditioning import Sample, settle
from hybridc.compiler.assurance.verify import Comparison
from hybridc.compiler.delegation import opaque_values
from hybridc.compiler.errors import WrongAnswerError
from hybridc.compiler.model import Array, Feed, Model, OpaqueSpec

Answers = Sequence[Sequence[Array]]  # by sample, then by output


def compare(
    model: Model, feeds: Sequence[Feed], wanted: Answers, got: Answers, how: verify.How
) -> tuple[Comparison, ...]:
    """Compare each output; of what has no one shape over the samples, the worst sample.

    Raises WrongAnswerError where there are more or fewer outputs, or shapes or dtypes differ.
    """
    count = len(model.outputs)
    if wrong := {len(sample) for sample in got} - {count}:
        raise WrongAnswerError(f"{wrong.pop()} outputs where the model has {count}")
    found: list[Comparison] = []
    for index in range(count):
        sides = ([sample[index] for sample in side] for side in (wanted, got))
        samples = [Sample(*each) for each in zip(feeds, *sides, strict=True)]
        found.append(_compared(model, index, samples, how))
    return tuple(found)


def _compared(model: Model, index: int, samples: Sequence[Sample], how: verify.How) -> Comparison:
    spec = model.outputs[index]
    if isinstance(spec, OpaqueSpec):
        each = [opaque_values.compare(spec.name, e.wanted, e.got, *how) for e in samples]
        return opaque_values.worst(each)
    if len({each.wanted.shape for each in samples}) > 1:
        return opaque_values.worst([_together(model, index, [each], how) for each in samples])
    return _together(model, index, samples, how)


def _together(model: Model, index: int, samples: Sequence[Sample], how: verify.How) -> Comparison:
    wanted, got = _stacked([e.wanted for e in samples]), _stacked([e.got for e in samples])
    found = verify.compare(model.outputs[index].name, wanted, got, *how)
    return settle(model, index, samples, found, how)


def _stacked(samples: Sequence[Array]) -> Array:
    return samples[0] if len(samples) == 1 else np.stack(samples)
