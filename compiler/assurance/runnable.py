"""Sizes at which a model's reference runs, where it runs not at all of those that are possible.

ONNX Runtime's attention of decoders, for one, takes several tokens behind others of one sequence
only: with 8 for every open size, such a model does not run.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

from hybridc.compiler import dims
from hybridc.compiler.assurance import samples
from hybridc.compiler.assurance.samples import Samples
from hybridc.compiler.configuration.plans import Plan
from hybridc.compiler.dims import Dim
from hybridc.compiler.errors import InputError
from hybridc.compiler.model import Array, Model, TensorSpec, open_dims
from hybridc.compiler.orchestration.time_budget import OutOfTimeError

Answered = tuple[Model, Samples, list[list[Array]]]


def answered(model: Model, plan: Plan, data: Samples, check: Callable[[str], None]) -> Answered:
    """The reference's answers to samples, and the model with the sizes at which it is measured.

    Where the reference refuses random inputs, an open size whose bounds nobody gave is the least,
    one after another.  Raises what `Samples.answered` does.
    """
    try:
        return model, *data.answered(model.reference, check)
    except OutOfTimeError:
        raise
    except InputError:
        if plan.data is not None or plan.validation is not None:
            raise
        for other in _others(model):
            drawn = samples.samples(other, plan)
            if (found := _unless_refused(drawn, other, check)) is not None:
                return other, *found
        raise


def _unless_refused(
    data: Samples, model: Model, check: Callable[[str], None]
) -> tuple[Samples, list[list[Array]]] | None:
    """The answers, or None where the reference does not run."""
    try:
        return data.answered(model.reference, check)
    except OutOfTimeError:
        raise
    except InputError:
        return None


def _others(model: Model) -> Iterator[Model]:
    """The model with one open size, and then with all, to be measured at the least."""
    free = [
        dim
        for dim in open_dims(model.inputs).values()
        if dim.usual is None and dim.high is None and dim.nominal != _least(dim)
    ]
    for chosen in [*([dim] for dim in free), *([free] if len(free) > 1 else [])]:
        at = {dim.name: _least(dim) for dim in chosen}
        told = f"the reference runs only at some sizes: measured at {dims.listed(at)}"
        yield replace(
            model,
            inputs=tuple(_at(spec, at) for spec in model.inputs),
            notes=(*model.notes, told),
        )


def _least(dim: Dim) -> int:
    """The least size that is not none at all."""
    return dim.above(max(dim.low, 1))


def _at(spec: TensorSpec, at: dims.Sizes) -> TensorSpec:
    """An input whose open sizes of these names are to be measured so."""
    sizes = (
        replace(size, usual=at[size.name]) if isinstance(size, Dim) and size.name in at else size
        for size in spec.shape
    )
    return replace(spec, shape=tuple(sizes))
