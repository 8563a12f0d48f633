"""Calls of compiled code with tensors of torch, which are read and written where they lie."""

from collections.abc import Collection, Sequence
from functools import partial
from typing import Any

from hybridc.compiler.dynamo import torch_device
from hybridc.compiler.dynamo.torch_freeze import Frozen, ordinary, pairs
from hybridc.compiler.dynamo.torch_sources import Argument, Computed, Plain, Result, Source
from hybridc.compiler.errors import InputError
from hybridc.compiler.model import TensorSpec
from hybridc.compiler.runtime.session import InferenceSession
from hybridc.compiler.runtime.tensors import ALIGNMENT
from hybridc.compiler.target import CPU

Tensor = Any  # torch.Tensor
Kind = tuple[tuple[int, ...], Any]  # a shape and a dtype of torch's


class Calls:
    """A region whose code is made: computes its outputs, and writes to its arguments.

    `session` is None where nothing is computed.
    """

    def __init__(self, frozen: Frozen, session: InferenceSession | None) -> None:
        self.frozen, self._session = frozen, session
        self._direct = _direct(frozen, session)
        computed = enumerate(frozen.results)
        self._complex = [i for i, how in computed if how.is_complex and self._direct is None]
        self._turned = [(i, how) for i, how in enumerate(frozen.results) if how.is_turned]

    def __call__(self, tensors: Sequence[Tensor]) -> list[Any]:
        """The outputs for a region's arguments."""
        frozen = self.frozen
        results, written = self._computed(tensors)
        for i, how in self._turned:
            results[i] = _laid_out(results[i], how)
        for place, source in frozen.writes:
            if place not in written:
                tensors[place].detach().copy_(_output(source, results, tensors))
        return [_output(source, results, tensors) for source in frozen.outputs]

    def _computed(self, tensors: Sequence[Tensor]) -> tuple[list[Tensor], Collection[int]]:
        """The results, and the places of arguments that were written to already."""
        if self._direct is not None:
            return self._direct(tensors)
        given = [tensors[place] for place in self.frozen.inputs]
        results = list(run(self._session, self.frozen.device, given))
        for i in self._complex:
            results[i] = _complex(results[i])
        return results, ()


def run(session: InferenceSession | None, device: Any, tensors: Sequence[Any]) -> Sequence[Any]:
    """The outputs as tensors of torch on `device`; none where nothing is computed."""
    import torch

    if session is None:
        return ()
    alignment = session.artifact.alignment
    results = session(*(torch_device.readable(pairs(ordinary(x)), alignment) for x in tensors))
    outputs = results if isinstance(results, tuple) else (results,)
    found = [x if isinstance(x, torch.Tensor) else torch.from_dlpack(x) for x in outputs]
    # Without inputs, a session knows no library to which its results should go.
    return [x if torch_device.place(x) == device else x.to(device) for x in found]


class Direct:
    """Calls by addresses: no tensors of other libraries are made.

    A result is computed in the place of an argument that it is written to, where the code allows
    that, and nothing else shows it.
    """

    def __init__(self, frozen: Frozen, session: InferenceSession) -> None:
        import torch

        self._session, self._increment = session, torch.autograd.graph.increment_version
        self._empty = partial(torch.empty, device=frozen.device)
        artifact = session.artifact
        taken = zip(frozen.inputs, artifact.inputs, strict=True)
        self._inputs = [(place, *_kind(spec, place in frozen.twofold)) for place, spec in taken]
        targets = _targets(frozen, session)
        made = enumerate(zip(artifact.outputs, frozen.results, strict=True))
        self._results = [(targets.get(i), *_kind(spec, how.is_complex)) for i, (spec, how) in made]

    def __call__(self, tensors: Sequence[Tensor]) -> tuple[list[Tensor], Collection[int]]:
        """The results, and the places of arguments in which such were computed."""
        # Tensors that stand for arguments have to live until the call is over.
        given, results = [], []
        written: list[int] = []
        for place, shape, dtype in self._inputs:
            tensor = tensors[place]
            if tensor.shape != shape or tensor.dtype is not dtype:
                got = f"{tuple(tensor.shape)} and {tensor.dtype}"
                raise InputError(f"code is for a tensor of {shape} and {dtype}, given: {got}")
            given.append(tensor if _is_plain(tensor) else self._copied(tensor))
        for target, shape, dtype in self._results:
            if target is not None and _is_plain(tensor := tensors[target]):
                written.append(target)
                results.append(tensor)
            else:
                results.append(self._empty(shape, dtype=dtype))
        self._session.compute_at([tensor.data_ptr() for tensor in (*given, *results)])
        if written:
            self._increment([tensors[place] for place in written])
        return results, written

    def _copied(self, tensor: Tensor) -> Tensor:
        plain = self._empty(tensor.shape, dtype=tensor.dtype)
        return plain.copy_(tensor.detach())


def _direct(frozen: Frozen, session: InferenceSession | None) -> Direct | None:
    if session is None or session.overwriting is None or frozen.device.type != CPU:
        return None
    return Direct(frozen, session)


def _is_plain(tensor: Tensor) -> bool:
    """Whether kernels can take a tensor where it lies."""
    return (
        tensor.data_ptr() % ALIGNMENT == 0
        and tensor.is_contiguous()
        and not tensor.is_neg()
        and not tensor.is_conj()
    )


def _kind(spec: TensorSpec, is_complex: bool) -> Kind:
    """What torch has for an input or output; complex numbers are pairs in compiled code."""
    import torch

    dtype: Any = getattr(torch, spec.dtype)
    return (spec.fixed[:-1], dtype.to_complex()) if is_complex else (spec.fixed, dtype)


def _targets(frozen: Frozen, session: InferenceSession) -> dict[int, int]:
    """The places of the arguments at which results may be computed, by the results' numbers."""
    numbers = {place: number for number, place in enumerate(frozen.inputs)}
    shown = {source.place for source in frozen.outputs if isinstance(source, Computed)}
    found: dict[int, int] = {}
    for place, source in frozen.writes:
        if not isinstance(source, Computed):
            return {}  # it may be one of the arguments, as it was before
        specs, index = session.artifact, source.place
        kinds = [(specs.outputs[index].shape, specs.outputs[index].dtype)]
        if source.view is not None or index in shown or index in found or place in found.values():
            continue
        if place in numbers:
            given = specs.inputs[numbers[place]]
            free = (index, numbers[place]) in (session.overwriting or ())
            if free and kinds == [(given.shape, given.dtype)]:
                found[index] = place
    return found


def _complex(tensor: Tensor) -> Tensor:
    import torch

    return torch.view_as_complex(tensor)


def _output(source: Source, results: Sequence[Tensor], args: Sequence[Any]) -> Any:
    match source:
        case Computed():
            found, view = results[source.place], source.view
            return found if view is None else found.as_strided(view.size, view.stride, view.offset)
        case Argument():
            return args[source.place]
        case Plain():
            return source.value


def _laid_out(tensor: Tensor, result: Result) -> Tensor:
    """The tensor laid out as torch's own would be: views behind the graph were traced on that."""
    import torch

    strides = result.strides
    if result.is_contiguous:
        return tensor.as_strided(tensor.shape, strides)
    copy = torch.empty_strided(tensor.shape, strides, dtype=tensor.dtype, device=tensor.device)
    # Along an axis that was expanded all elements are one, and torch refuses to write to each.
    first = tuple(slice(None) if stride else slice(1) for stride in strides)
    copy[first].copy_(tensor[first])
    return copy
