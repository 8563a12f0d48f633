"""Regions at run time: one session of ONNX Runtime for each, on the memory of compiled code.

Tensors are handed over by their addresses, in both directions.  Opaque values, those that compiled
code does not look into, go from region to region beside it, by name.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from hybridc.compiler.delegation.mixed_session import MixedSession
from hybridc.compiler.delegation.region_session import open_session
from hybridc.compiler.delegation.runtime_values import ELEMENTS, first, ort_value, to_array
from hybridc.compiler.errors import ArtifactError, HybridcError, InputError
from hybridc.compiler.model import Array, OpaqueSpec, Region, TensorSpec
from hybridc.compiler.runtime import carriers
from hybridc.compiler.runtime.tensors import InputPort, empty, to_numpy, to_tensor

_DEVICE = ("cpu", 0)


class RegionSet:
    """The regions of one compiled model, ready to be called.

    `values` holds opaque values by name: the caller's before a call, the regions' after it.
    Serves one call at a time.  Raises ArtifactError if ONNX Runtime is missing or refuses.
    """

    def __init__(self, regions: Sequence[Region], threads: int) -> None:
        self.values: dict[str, Any] = {}
        self.failure: HybridcError | None = None
        self._runners = [_Runner(region, threads, self) for region in regions]

    def functions(self) -> Any:
        """What `main` takes for its parameter `regions`."""
        import tvm

        return tvm.runtime.convert(self.callbacks())

    def callbacks(self) -> tuple[Callable[..., None], ...]:
        """The regions as functions, in their order."""
        return tuple(map(_callback, self._runners))

    def read(self) -> list[tuple[Callable[..., None], int]]:
        """The same, each with the number of tensors that it reads."""
        counts = [len(runner.region.inputs) for runner in self._runners]
        return list(zip(self.callbacks(), counts, strict=True))

    def take(self, spec: TensorSpec, value: Any) -> Array:
        """What `main` gets for an input: the array itself, or a handle of an opaque value."""
        if not isinstance(spec, OpaqueSpec):
            return np.asarray(value)
        self.values[spec.name] = value
        return np.zeros(spec.fixed, spec.dtype)

    def give(self, spec: TensorSpec, array: Array) -> Any:
        """An output from what `main` gave; opaque ones as ONNX Runtime has them in Python.

        Those are an array, a list, a mapping or None.
        """
        if isinstance(spec, OpaqueSpec):
            return self.value(spec.name)
        return carriers.declared(array, spec.dtype)

    def value(self, name: str) -> Any:
        """An opaque value by its name.

        Raises InputError if numpy has no such type, ArtifactError if no region computes it.
        """
        if name not in self.values:
            raise ArtifactError(f"no region of the artifact computes {name!r}")
        value = self.values[name]
        return to_array(value) if _is_ort_value(value) else value


@dataclass(frozen=True)
class OpaquePort(InputPort):
    """Takes what is given for an opaque input as it is; a handle goes to compiled code."""

    values: dict[str, Any] = field(default_factory=dict[str, Any])

    def bind(self, value: object) -> Any:
        """Keep the value for the regions, which check it."""
        self.values[self.spec.name] = value
        return self._handle

    def bind_dlpack(self, value: Any, device: Any = "cpu:0") -> Any:
        """The same, for calls with tensors of other libraries."""
        return self.bind(value)

    @cached_property
    def _handle(self) -> Any:
        return to_tensor(np.zeros(self.spec.fixed, self.spec.dtype))


class _Runner:
    """One region: takes tensors for its inputs, then those that it writes its outputs into."""

    def __init__(self, region: Region, threads: int, owner: RegionSet) -> None:
        self.region, self.owner = region, owner
        self._session = open_session(region, threads)
        self._bound: tuple[tuple[int, ...], Any] | None = None
        self._spare = empty((64,), np.dtype(np.uint8))  # the address of tensors without elements
        specs = [*region.inputs, *region.outputs]
        self._opaque = any(isinstance(spec, OpaqueSpec) for spec in specs)
        self._mixed = isinstance(self._session, MixedSession)
        # Maps have no values of ONNX Runtime's own that Python could copy.
        maps = any(isinstance(s, OpaqueSpec) and "map(" in s.type for s in region.outputs)
        self._copies = self._mixed or maps

    def __call__(self, tensors: Sequence[Any]) -> None:
        """Compute.  Raises InputError if ONNX Runtime fails."""
        count = len(self.region.inputs)
        try:
            if self._copies or (self._opaque and not self._bindable()):
                self._by_value(tensors[:count], tensors[count:])
            else:
                self._by_address(tensors[:count], tensors[count:])
        except HybridcError:
            raise
        except Exception as error:  # its classes are not public
            who = "hybridc" if self._mixed else "ONNX Runtime"
            raise InputError(f"{who} fails in {self.region.name}: {first(error)}") from error

    def _bindable(self) -> bool:
        """Whether every opaque input is a value of ONNX Runtime's own."""
        values = (self.owner.values[s.name] for s in self.region.inputs if _is_opaque(s))
        return all(_is_ort_value(value) for value in values)

    def _by_address(self, operands: Sequence[Any], results: Sequence[Any]) -> None:
        addresses = tuple(self._address(tensor) for tensor in (*operands, *results))
        if self._opaque:  # a second run would write over the values that the first one made
            binding = self._binding(addresses)
            self._session.run_with_iobinding(binding)
            self._keep(binding)
            return
        if self._bound is None or self._bound[0] != addresses:
            self._bound = addresses, self._binding(addresses)
        self._session.run_with_iobinding(self._bound[1])

    def _binding(self, addresses: tuple[int, ...]) -> Any:
        binding, region = self._session.io_binding(), self.region
        count = len(region.inputs)
        for spec, address in zip(region.inputs, addresses[:count], strict=True):
            if _is_opaque(spec):
                binding.bind_ortvalue_input(spec.name, self.owner.values[spec.name])
            else:
                binding.bind_input(spec.name, *_DEVICE, *_kind(spec), address)
        for spec, address in zip(region.outputs, addresses[count:], strict=True):
            if _is_opaque(spec):
                binding.bind_output(spec.name)
            else:
                binding.bind_output(spec.name, *_DEVICE, *_kind(spec), address)
        return binding

    def _keep(self, binding: Any) -> None:
        """Keep the opaque outputs; what is no tensor, only the copy to Python can open."""
        outputs = binding.get_outputs()
        pairs = list(zip(self.region.outputs, outputs, strict=True))
        closed = [v for spec, v in pairs if _is_opaque(spec) and not _readable(v)]
        copies = binding.copy_outputs_to_cpu() if closed else outputs
        for (spec, value), copy in zip(pairs, copies, strict=True):
            if _is_opaque(spec):
                self.owner.values[spec.name] = value if _readable(value) else copy

    def _by_value(self, operands: Sequence[Any], results: Sequence[Any]) -> None:
        """Where a caller's strings or lists go in, which have no address."""
        feed = {
            spec.name: self.owner.values[spec.name]
            if _is_opaque(spec)
            else ort_value(to_numpy(tensor, np.dtype(spec.dtype)))
            for spec, tensor in zip(self.region.inputs, operands, strict=True)
        }
        names = [spec.name for spec in self.region.outputs]
        outputs = self._session.run(names, feed)
        for spec, value, tensor in zip(self.region.outputs, outputs, results, strict=True):
            if _is_opaque(spec):
                self.owner.values[spec.name] = value
            else:
                _fill(tensor, spec, np.asarray(value))

    def _address(self, tensor: Any) -> int:
        return int(tensor.data_ptr()) or int(self._spare.ctypes.data)


def _callback(runner: _Runner) -> Callable[..., None]:
    """The runner as a function for TVM, which keeps no class of an error but its text."""
    owner = runner.owner

    def call(*tensors: Any) -> None:
        try:
            runner(tensors)
        except HybridcError as error:
            owner.failure = error
            raise

    return call


def _fill(tensor: Any, spec: TensorSpec, value: Array) -> None:
    if value.shape != spec.shape:
        raise InputError(f"{spec.describe()} has the shape {list(value.shape)} for these inputs")
    if math.prod(spec.fixed):
        np.copyto(to_numpy(tensor, np.dtype(spec.dtype)), value)


def _kind(spec: TensorSpec) -> tuple[int, tuple[int, ...]]:
    return ELEMENTS[spec.dtype], spec.fixed


def _is_opaque(spec: TensorSpec) -> bool:
    return isinstance(spec, OpaqueSpec)


def _is_ort_value(value: object) -> bool:
    return type(value).__name__ == "OrtValue"


def _readable(value: Any) -> bool:
    """Whether a value of ONNX Runtime's is a tensor, which Python can read at any time."""
    return bool(value.has_value() and value.is_tensor())
