"""Calls of a model of open sizes by the addresses of its arrays, without the virtual machine.

What sizes need is asked of the library once, and kept for those of the last calls: a table of
addresses and numbers of their own, and arrays for small inputs and results.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from hybridc.compiler import dims
from hybridc.compiler.aot import addresses, open_table
from hybridc.compiler.artifacts.artifact import Artifact
from hybridc.compiler.model import Array
from hybridc.compiler.runtime.array_address import address
from hybridc.compiler.runtime.recycled import Recycled
from hybridc.compiler.runtime.tensors import SMALL, InputPort, Tensor, empty, to_tensor

# Sizes whose tables are kept, and bytes of large results that may wait for more calls of theirs.
_KEPT, _WAITING = 64, 2**26
Shapes = tuple[tuple[int, ...], ...]


@dataclass
class _Call:
    """What calls of one set of shapes need.

    `stages` are the arrays of small inputs, by place; `small` those of small results, `large` the
    kinds of the others and `arrays` what gives them, by number.
    """

    table: Array
    argument: Tensor
    memory: int
    stages: dict[int, Array] = field(default_factory=dict[int, Array])
    small: dict[int, Array] = field(default_factory=dict[int, Array])
    large: dict[int, tuple[tuple[int, ...], np.dtype[Any]]] = field(default_factory=dict[int, Any])
    arrays: dict[int, Recycled] = field(default_factory=dict[int, Recycled])

    @property
    def waiting(self) -> int:
        """The bytes of large results that are kept for the next calls, two of each."""
        kinds = self.large.values() if self.arrays else ()
        return sum(2 * dtype.itemsize * prod(shape) for shape, dtype in kinds)


class BySizes:
    """The function of a loaded library, with a table for the sizes of each call.

    `given` are its weights, and `ports` take its inputs.  `alone` tells that it starts no threads.
    It serves a call at a time.
    """

    #: Nobody computes into the place of an input: who asks for that has fixed sizes.
    overwriting = None

    def __init__(
        self, kernels: Any, artifact: Artifact, ports: Sequence[InputPort], given: Sequence[Tensor]
    ) -> None:
        self.alone = kernels.implements_function(addresses.ALONE)
        self._run = kernels[addresses.ALONE if self.alone else addresses.RUN]
        self._sizes = kernels[open_table.SIZES]
        self._ports, self._outputs, self._given = tuple(ports), artifact.outputs, tuple(given)
        self._named = tuple((port.spec.name, port.dtype, port.checked) for port in ports)
        self._kinds = tuple(np.dtype(spec.dtype) for spec in artifact.outputs)
        self._numbers = len(ports) + len(artifact.outputs) + 1 + len(given)
        self._length = self._numbers + int(kernels[open_table.COUNT]())
        self._calls: dict[Shapes, _Call] = {}
        self._memory = empty((0,), np.dtype(np.uint8))
        self._last: _Call | None = None

    def __call__(self, feed: Mapping[str, object]) -> list[Array]:
        """All results, arrays of the caller's own.

        Raises InputError as `InputPort.bind` does, and where inputs differ in a size they share.
        """
        named = self._named
        read = [self._array(feed[name], dtype, checked) for name, dtype, checked in named]
        shapes = tuple([array.shape for array in read])
        call = self._calls.get(shapes) or self._planned(read, shapes)
        if call is not self._last:
            self._enter(call)
        table = call.table
        # What is read where it lies has to live until the call is over.
        for place, array in enumerate(read):
            stage = call.stages.get(place)
            if stage is not None:
                stage[...] = array
            else:
                read[place] = self._placed(place, array, table)
        made = self._made(call)
        self._run(call.argument)
        small = call.small
        return [
            small[number].copy() if number in small else made[number]
            for number in range(len(self._kinds))
        ]

    @staticmethod
    def _array(given: Any, dtype: np.dtype[Any], checked: Any) -> Array:
        """An array of the input's type; whether its shape will do is asked where it is new."""
        array: Array = given
        if type(given) is not np.ndarray or given.dtype is not dtype:
            array = checked(given)
        return array

    def _placed(self, place: int, array: Array, table: Array) -> Array:
        """An array that kernels can read where it lies, as the table then says."""
        start = address(array)
        if start % self._ports[place].alignment or not array.flags.c_contiguous:
            copied = empty(array.shape, array.dtype)
            copied[...] = array
            array, start = copied, address(copied)
        table[place] = start
        return array

    def _made(self, call: _Call) -> dict[int, Array]:
        """Arrays for the results that are not small."""
        made: dict[int, Array] = {}
        for number in call.large:
            made[number], call.table[len(self._ports) + number] = call.arrays[number].next()
        return made

    def _enter(self, call: _Call) -> None:
        """Make ready for other sizes than those of the last call."""
        self._last = None  # whose memory may be gone if what follows is interrupted
        if self._memory.nbytes < call.memory:
            self._memory = empty((0,), self._memory.dtype)  # the old one goes first
            self._memory = empty((call.memory,), self._memory.dtype)
        call.table[len(self._ports) + len(self._kinds)] = address(self._memory)
        if not call.arrays:
            call.arrays = {number: Recycled(*kind) for number, kind in call.large.items()}
            others = [each for each in self._calls.values() if each is not call]
            if call.waiting + sum(each.waiting for each in others) > _WAITING:
                for each in others:
                    each.arrays = {}
        self._last = call

    def _planned(self, read: Sequence[Array], shapes: Shapes) -> _Call:
        """What these shapes need.  Raises InputError if they cannot be."""
        for port, array in zip(self._ports, read, strict=True):
            port.checked(array)
        pairs = zip(self._ports, shapes, strict=True)
        dims.bind({port.spec.name: (port.spec.shape, shape) for port, shape in pairs})
        table = empty((self._length,), np.dtype(np.int64))
        table[:] = 0
        first = self._numbers - len(self._given)
        table[first : self._numbers] = [weight.data_ptr() for weight in self._given]
        sizes = _open([port.spec.shape for port in self._ports], shapes)
        table[self._numbers : self._numbers + len(sizes)] = sizes
        call = _Call(table, to_tensor(table), 0)
        self._sizes(call.argument)
        call.memory = int(table[-1])
        for place, array in enumerate(read):
            if array.nbytes <= SMALL:
                call.stages[place] = self._stage(place, array.shape, array.dtype, table)
        made = iter(table[self._numbers + len(sizes) :].tolist())
        for number, (spec, dtype) in enumerate(zip(self._outputs, self._kinds, strict=True)):
            shape = tuple(next(made) if isinstance(n, dims.Dim) else n for n in spec.shape)
            if prod(shape) * dtype.itemsize <= SMALL:
                place = len(self._ports) + number
                call.small[number] = self._stage(place, shape, dtype, table)
            else:
                call.large[number] = shape, dtype
        if len(self._calls) >= _KEPT:
            self._calls.clear()
        self._calls[shapes] = call
        return call

    @staticmethod
    def _stage(place: int, shape: tuple[int, ...], dtype: np.dtype[Any], table: Array) -> Array:
        """An array that keeps its place."""
        array = empty(shape, dtype)
        table[place] = address(array)
        return array


def _open(specs: Sequence[Sequence[Any]], shapes: Shapes) -> list[int]:
    """The open sizes, one by one."""
    return [
        extent
        for sizes, shape in zip(specs, shapes, strict=True)
        for size, extent in zip(sizes, shape, strict=True)
        if isinstance(size, dims.Dim)
    ]
