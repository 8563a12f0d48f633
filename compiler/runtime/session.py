"""Run an artifact, with the interface of ONNX Runtime's sessions."""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import tvm
from tvm import relax, runtime

from hybridc.compiler import dims, settings
from hybridc.compiler.aot.join import BY_KERNEL
from hybridc.compiler.artifacts.artifact import Artifact
from hybridc.compiler.cuda import faults
from hybridc.compiler.delegation.region_runtime import OpaquePort
from hybridc.compiler.delegation.regions import announce
from hybridc.compiler.errors import InputError, hint
from hybridc.compiler.hardware import host
from hybridc.compiler.hardware.workers import workers
from hybridc.compiler.model import OpaqueSpec, TensorSpec
from hybridc.compiler.runtime import loading
from hybridc.compiler.runtime.by_address import ByAddress, by_address, chosen
from hybridc.compiler.runtime.node_arg import NodeArg, node_arg, wrong_names
from hybridc.compiler.runtime.placement import Placement
from hybridc.compiler.runtime.tensors import (
    InputPort,
    OpenPort,
    Reader,
    Tensor,
    check_mapping,
    copying,
    library_of,
    reader,
    to_library,
)


class InferenceSession:
    """A loaded artifact, ready to run.

    `source` is an artifact or its path, `threads` the number of threads of each call (default: one
    per available core).  `plugins` are files with backends that an artifact read from a path may
    need.  Calls from several threads are safe; they run one after another.

    Raises ArtifactError if the artifact is damaged or cannot run on this host, and InputError if
    there are fewer CPUs than `threads`.
    """

    def __init__(
        self,
        source: str | Path | Artifact,
        threads: int | None = None,
        plugins: Sequence[Path] = (),
    ) -> None:
        if not isinstance(source, Artifact):
            source = Artifact.load(loading.path_of(source), plugins)
        self.artifact = source
        loading.check_host(self.artifact)
        self._workers = workers()
        self._count_threads: Any = self._workers.count
        self._threads = self._claim_threads(threads)
        announce(self.artifact.called)
        self._parts = loading.regions(self.artifact, self._threads)
        self._offloaded = loading.offloads(self.artifact, self._threads)
        self._place = loading.placed(self.artifact)
        library = loading.library(self.artifact.library, self.artifact.device)
        self._machine = relax.VirtualMachine(library, self._place.device)
        by_torch, by_host = bool(self.artifact.offloads), bool(self.artifact.regions)
        kept = partial(loading.holding, library, self._place.device)
        self._main: Any = self._place.replayed(self._machine["main"], kept, by_torch, by_host)
        # A GPU gets the weights once, here.
        tensors = loading.uploaded(self.artifact, self._place)
        weights: Any = tvm.runtime.convert(tensors)
        # What `main` takes behind the inputs.
        called: Any = (*self._place.called(self._parts.read()), *self._offloaded.functions)
        self._last = (tvm.runtime.convert(called), weights) if called else (weights,)
        self._kept = frozenset(tensor.data_ptr() for tensor in tensors)
        self._names = tuple(spec.name for spec in self.artifact.inputs)
        self._expected: Set[str] = frozenset(self._names)
        self._ports = tuple(map(self._port, self.artifact.inputs))
        self._named = tuple(zip(self._names, self._ports, strict=True))
        self._outputs = {spec.name: index for index, spec in enumerate(self.artifact.outputs)}
        self._dtypes = tuple(
            None if isinstance(spec, OpaqueSpec) else np.dtype(spec.dtype)
            for spec in self.artifact.outputs
        )
        self._readers = tuple(None if dtype is None else reader(dtype) for dtype in self._dtypes)
        self._opaque = {
            index: spec.name
            for index, spec in enumerate(self.artifact.outputs)
            if isinstance(spec, OpaqueSpec)
        }
        self._every = tuple(enumerate(self._readers))
        self._at_once = by_address(library, self.artifact, self._ports, tensors)
        self._open = any(dims.is_open(spec.shape) for spec in self.artifact.inputs)
        self._answered = False  # what the first call gives is held against the manifest
        self._lock = threading.Lock()

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled: machine code that is loaded is not data."""
        raise InputError("a session cannot be pickled or copied; create another from its artifact")

    @property
    def threads(self) -> int:
        """The number of threads of a call."""
        return self._threads

    def get_inputs(self) -> list[NodeArg]:
        """The name, shape and type of each input, in the order of `session(...)`."""
        return list(map(node_arg, self.artifact.inputs))

    def get_outputs(self) -> list[NodeArg]:
        """The name, shape and type of each output, in the order in which they are returned."""
        return list(map(node_arg, self.artifact.outputs))

    def run(self, output_names: Sequence[str] | None, input_feed: Mapping[str, Any]) -> list[Any]:
        """Compute the named outputs (None or an empty list: all) from numpy arrays by input name.

        Strings, sequences, maps and optionals have ONNX Runtime's form: object arrays, lists,
        dictionaries and None.  The returned arrays belong to the caller.

        Raises InputError if an input is missing, unknown, or not of the dtype and shape that
        `get_inputs` gives, or if no output has the name.
        """
        if type(input_feed) is not dict:
            check_mapping(input_feed)
        if input_feed.keys() != self._expected:
            raise wrong_names(self.artifact.inputs, input_feed)
        wanted = self._every if output_names is None else self._wanted(output_names) or self._every
        with self._lock:
            # Small models take microseconds: what is not needed here is not called.
            if self._at_once is not None:
                if not self._at_once.alone:
                    self._gather_workers()
                every = self._at_once(input_feed)
                return every if wanted is self._every else chosen(every, wanted)
            operands = [port.bind(input_feed[name]) for name, port in self._named]
            if self._open:
                self._check_sizes(operands)
            if not self._place.on_host:
                operands = self._place.put_all(operands)
            results = self._invoke(operands)
            if not self._place.on_host:
                results = self._place.fetch(results)
            outputs = [
                self._parts.value(self._opaque[index]) if read is None else read(results[index])
                for index, read in wanted
            ]
            self._parts.values.clear()
        return outputs

    def __call__(self, *tensors: Any) -> Any:
        """Compute the outputs from DLPack tensors, in the order of the inputs.

        Inputs may be on the CPU or on the artifact's device; those already on that device are not
        copied if they are contiguous and aligned like numpy's and torch's.  Returns one tensor, or
        a tuple if there are several outputs, of the library of the first input.  Raises InputError
        as `run` does.
        """
        if len(tensors) != len(self._ports):
            names = ", ".join(self._names)
            raise InputError(f"{len(tensors)} inputs given, expected {len(self._ports)}: {names}")
        with self._lock:
            device, pairs = self._place.device, zip(self._ports, tensors, strict=True)
            library = library_of(tensors)
            bound = [port.bind_dlpack(x, device) for port, x in pairs]
            operands = self._place.put_all(bound, library)
            self._check_sizes(operands)
            results = self._place.handed(self._invoke(operands), self._main, library)
            for index, name in self._opaque.items():
                results[index] = self._parts.value(name)
            self._parts.values.clear()
        outputs = tuple(
            result if dtype is None else to_library(library, result, dtype)
            for result, dtype in zip(results, self._dtypes, strict=True)
        )
        return outputs[0] if len(outputs) == 1 else outputs

    @property
    def overwriting(self) -> Set[tuple[int, int]] | None:
        """Results and inputs in whose place they may lie, by number; None without `compute_at`."""
        return None if self._at_once is None else self._at_once.overwriting

    def compute_at(self, addresses: Sequence[int]) -> None:
        """Compute where `overwriting` is no None, from and into memory that nobody checks.

        `addresses` are those of all inputs and then of all results, in the order of the artifact.
        """
        assert isinstance(self._at_once, ByAddress)
        with self._lock:
            if not self._at_once.alone:
                self._gather_workers()
            self._at_once.at(addresses)

    def on_device(self, feed: Mapping[str, Any]) -> tuple[Any, Any, tuple[Any, ...]]:
        """For whoever times calls there: the GPU, `main`, and what it is called with for a feed."""
        operands = self._place.put_all([port.bind(feed[name]) for name, port in self._named])
        return self._place, self._main, (*operands, *self._last)

    @property
    def clock(self) -> Placement:
        """What tells the time of kernels: the host, or the GPU that they run on."""
        return self._place

    def instrument(self, observer: Callable[..., int]) -> None:
        """Let `observer` see each call of the virtual machine, before and after it.

        It gets the function, its name, whether the call is still to come, its result and its
        arguments, and returns 0; kernels are called one by one then, which takes longer.
        """
        known = self._machine.module.implements_function(BY_KERNEL)
        self._main = self._machine[BY_KERNEL if known else "main"]  # no graph of a GPU
        self._at_once = None
        self._machine.set_instrument(observer)

    def _invoke(self, operands: list[Tensor]) -> list[Tensor]:
        """Run the machine; a result that is an input, a weight or another result is copied.

        Graphs may return what they were given; the caller must not find that two arrays are one.
        """
        self._gather_workers()
        try:
            result = self._main(*operands, *self._last)
        except Exception as error:
            failure = self._parts.failure or self._offloaded.failure
            failure = failure or loading.refused(self.artifact, error)
            failure = failure or (None if self._place.on_host else faults.told(error))
            if failure is None:
                raise
            self._parts.failure = self._offloaded.failure = None
            raise failure from error
        results = [result] if isinstance(result, runtime.Tensor) else list(result)
        if not self._answered:
            loading.require_results(self.artifact, results)
            self._answered = True
        taken = {tensor.data_ptr() for tensor in operands}
        for index, tensor in enumerate(results):
            address = tensor.data_ptr()
            if address in taken or address in self._kept:
                results[index] = tensor.copyto(self._place.device)
            taken.add(address)
        return results

    def _gather_workers(self) -> None:
        if self._count_threads() != self._threads:  # another session, or a thread's new pool
            self._workers.resize(self._threads)

    def _port(self, spec: TensorSpec) -> InputPort:
        alignment = self.artifact.alignment
        if isinstance(spec, OpaqueSpec):
            return OpaquePort(spec, alignment, self._parts.values)
        return (OpenPort if dims.is_open(spec.shape) else InputPort)(spec, alignment)

    def _check_sizes(self, operands: Sequence[Tensor]) -> None:
        """Raise InputError if inputs differ in an open size that they share."""
        if self._open:
            dims.bind(
                {
                    spec.name: (spec.shape, tuple(tensor.shape))
                    for spec, tensor in zip(self.artifact.inputs, operands, strict=True)
                }
            )

    def _claim_threads(self, wanted: Any) -> int:
        """Size TVM's thread pool, which listens to the environment once per calling thread."""
        if not (wanted is None or hasattr(wanted, "__index__")):
            raise InputError(f"threads must be a whole number, got {wanted!r}")
        wanted = None if wanted is None else wanted.__index__()
        if wanted is not None and wanted < 1:
            raise InputError(f"threads must be positive, got {wanted}")
        cpus = len(host.allowed_cpus())
        if wanted is not None and wanted > cpus:
            raise InputError(
                f"threads={wanted} requested, but this process may use only {cpus} CPUs"
            )
        usual = min(settings.requested_threads() or host.cores(), cpus)
        settings.set_runtime_threads(max(usual, wanted or 0))
        self._workers.resize(wanted or usual)
        got = int(self._count_threads())
        if wanted is not None and got != wanted:
            raise InputError(f"threads={wanted} requested, but this process can use only {got}")
        return got

    def _wanted(self, names: Any) -> list[tuple[int, Reader | None]]:
        if isinstance(names, str) or not isinstance(names, Iterable):
            raise InputError(f"expected a list of output names, got {names!r}")
        listed: Iterable[Any] = names
        found = [self._output(name) for name in listed]
        return [
            copying(*pair) if pair in found[:place] else pair for place, pair in enumerate(found)
        ]

    def _output(self, name: Any) -> tuple[int, Reader | None]:
        index = self._outputs.get(name) if isinstance(name, str) else None
        if index is None:
            raise InputError(f"no output is named {name!r}; {hint(str(name), self._outputs)}")
        return index, self._readers[index]
