"""Calls of a model of fixed sizes by the addresses of its arrays, without the virtual machine.

Around kernels of a few microseconds the virtual machine, tensors on numpy's memory and their ends
take longer than the kernels.  Here weights and the memory between kernels stay where they are, and
so do small inputs and results, which are copied.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from hybridc.compiler import dims
from hybridc.compiler.aot import addresses
from hybridc.compiler.artifacts.artifact import Artifact
from hybridc.compiler.model import Array, OpaqueSpec
from hybridc.compiler.runtime import loading
from hybridc.compiler.runtime.array_address import address
from hybridc.compiler.runtime.by_sizes import BySizes
from hybridc.compiler.runtime.carriers import CARRIERS
from hybridc.compiler.runtime.recycled import Recycled
from hybridc.compiler.runtime.tensors import SMALL, InputPort, Tensor, empty, to_tensor


class ByAddress:
    """The function of a loaded library, with a table of addresses; it serves a call at a time.

    `given` are its weights, and `ports` take its inputs.  `alone` tells that it starts no threads.
    """

    def __init__(
        self, kernels: Any, artifact: Artifact, ports: Sequence[InputPort], given: Sequence[Tensor]
    ) -> None:
        self.alone = kernels.implements_function(addresses.ALONE)
        self._run = kernels[addresses.ALONE if self.alone else addresses.RUN]
        self._held = tuple(given), empty((int(kernels[addresses.BYTES]()),), np.dtype(np.uint8))
        inputs, results = len(ports), len(artifact.outputs)
        self._table = empty((inputs + results + 1 + len(given),), np.dtype(np.int64))
        self._table[inputs + results] = address(self._held[1])
        self._table[inputs + results + 1 :] = [weight.data_ptr() for weight in given]
        self._argument = to_tensor(self._table)
        self._others = _copy(self._table)
        self._other_argument = to_tensor(self._others)
        #: Results, by number, each with the input in whose place it may be computed.
        self.overwriting = frozenset(
            (result, given)
            for result in range(results)
            for given in range(inputs)
            if kernels.implements_function(addresses.overwriting(result, given))
        )
        self._take = [(port.spec.name, self._taking(i, port)) for i, port in enumerate(ports)]
        kinds = [(spec.fixed, np.dtype(spec.dtype)) for spec in artifact.outputs]
        stages = [self._stage(inputs + i, *kind) for i, kind in enumerate(kinds)]
        self._copies = [stage.copy for stage in stages if stage.nbytes <= SMALL]
        large = [i for i, stage in enumerate(stages) if stage.nbytes > SMALL]
        self._large = [(i, inputs + i, Recycled(*kinds[i])) for i in large]

    def __call__(self, feed: Mapping[str, object]) -> list[Array]:
        """All results, arrays of the caller's own.  Raises InputError as `InputPort.bind` does."""
        # What is read where it lies has to live until the call is over.
        read = [take(feed[name]) for name, take in self._take]
        if self._large:
            return self._with_large(read)
        self._run(self._argument)
        return [copy() for copy in self._copies]

    def at(self, places: Sequence[int]) -> None:
        """Compute at the addresses of the inputs and, behind them, of the results.

        Nobody checks what lies there: rows without gaps, on addresses that are aligned.
        """
        self._others[: len(places)] = places
        self._run(self._other_argument)

    def _with_large(self, _read: Sequence[Any]) -> list[Array]:
        made = [(i, self._made(place, arrays)) for i, place, arrays in self._large]
        self._run(self._argument)
        results = [copy() for copy in self._copies]
        for i, array in made:  # in the order of their numbers, so that each comes to its place
            results.insert(i, array)
        return results

    def _made(self, place: int, arrays: Recycled) -> Array:
        """An array for a result."""
        array, self._table[place] = arrays.next()
        return array

    def _stage(self, place: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """An array that keeps its place."""
        array = empty(shape, dtype)
        self._table[place] = address(array)
        return array

    def _taking(self, place: int, port: InputPort) -> Callable[[Any], Any]:
        """What puts an input where kernels read it."""
        dtype, shape, checked = port.dtype, port.spec.shape, port.checked
        stage = self._stage(place, port.spec.fixed, dtype)
        table, alignment, staged = self._table, port.alignment, address(stage)

        def copied(given: Any) -> None:
            # Most are as they should be, and seen to be so with as little as this.
            if type(given) is not np.ndarray or given.dtype is not dtype or given.shape != shape:
                given = checked(given)
            stage[...] = given

        def taken(given: Any) -> Array:
            array: Array = given
            if type(given) is not np.ndarray or given.dtype is not dtype or given.shape != shape:
                array = checked(given)
            start = address(array)
            if start % alignment or not array.flags.c_contiguous:
                stage[...], start = array, staged
            table[place] = start
            return array

        return copied if stage.nbytes <= SMALL else taken


def by_address(
    library: Any, artifact: Artifact, ports: Sequence[InputPort], weights: Sequence[Tensor]
) -> ByAddress | BySizes | None:
    """The calls of a loaded artifact, or None if they need the virtual machine.

    Raises ArtifactError if its manifest or its weights are not those of its library, which would
    read and write beyond them.
    """
    specs = [*artifact.inputs, *artifact.outputs]
    if artifact.called or "gpu" in artifact.target:
        return None
    if any(isinstance(spec, OpaqueSpec) for spec in specs):
        return None
    if any(spec.dtype in CARRIERS for spec in specs):
        return None
    is_open = any(dims.is_open(spec.shape) for spec in specs)
    for kernels in library.imports:
        if kernels.implements_function(addresses.LAYOUT):
            if _has_layout(kernels, artifact, ports):
                return (BySizes if is_open else ByAddress)(kernels, artifact, ports, weights)
            if not is_open:
                raise loading.mismatch(artifact)
            # The virtual machine compares sizes itself.
    return None


def _has_layout(kernels: Any, artifact: Artifact, ports: Sequence[InputPort]) -> bool:
    inputs = [(_numbers(port.spec.shape), str(port.dtype)) for port in ports]
    results = [(_numbers(spec.shape), str(np.dtype(spec.dtype))) for spec in artifact.outputs]
    weights = [array.nbytes for array in artifact.weights.values()]
    return addresses.layout(inputs, results, weights) == int(kernels[addresses.LAYOUT]())


def _numbers(shape: dims.Shape) -> tuple[int, ...]:
    """A shape as the layout has it."""
    return tuple(-1 if isinstance(size, dims.Dim) else size for size in shape)


def chosen(results: Sequence[Array], wanted: Sequence[tuple[int, Any]]) -> list[Array]:
    """The results that are wanted; copies of those that were asked for before."""
    indices = [index for index, _ in wanted]
    return [
        results[index].copy() if index in indices[:place] else results[index]
        for place, index in enumerate(indices)
    ]


def _copy(table: Array) -> Array:
    other = empty(table.shape, table.dtype)
    other[...] = table
    return other
