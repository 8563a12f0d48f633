"""Calls of a model of fixed sizes by the addresses of its arrays, without the virtual machine.

Around kernels of a few microseconds the virtual machine, tensors on numpy's memory and their ends
take longer than the kernels.  Here weights and the memory between kernels stay where they are, and
so do small inputs and results, which are copied.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from hybridc.compiler import dims
from hybridc.compiler.aot import addresses
from hybridc.compiler.artifact import Artifact
from hybridc.compiler.model import Array, OpaqueSpec
from hybridc.compiler.tensors import SMALL, InputPort, Tensor, empty, in_dlpack, to_tensor

Port = InputPort


class ByAddress:
    """The function of a loaded library, with a table of addresses; it serves a call at a time.

    `given` are its weights, and `ports` take its inputs.
    """

    def __init__(
        self, kernels: Any, artifact: Artifact, ports: Sequence[Port], weights: Sequence[Tensor]
    ) -> None:
        self._run = kernels[addresses.RUN]
        outputs = artifact.outputs
        inputs, results = len(ports), len(outputs)
        self._table = empty((inputs + results + 1 + len(weights),), np.dtype(np.int64))
        self._argument = to_tensor(self._table)
        self._memory = empty((max(1, int(kernels[addresses.BYTES]())),), np.dtype(np.uint8))
        self._table[inputs + results] = _address(self._memory)
        self._table[inputs + results + 1 :] = [weight.data_ptr() for weight in weights]
        self._held = tuple(weights)
        self._take = [self._taking(place, port) for place, port in enumerate(ports)]
        made = [(spec.fixed, np.dtype(spec.dtype)) for spec in outputs]
        self._give = [self._giving(inputs + i, *kind) for i, kind in enumerate(made)]

    def __call__(self, given: Sequence[object]) -> list[Array]:
        """All results, arrays of the caller's own.  Raises InputError as `InputPort.bind` does."""
        # What is given has to live until the call is over.
        read = [take(each) for take, each in zip(self._take, given, strict=True)]
        made = [begin() for begin, _ in self._give]
        self._run(self._argument)
        del read
        return [end(array) for (_, end), array in zip(self._give, made, strict=True)]

    def _taking(self, place: int, port: Port) -> Callable[[Any], Any]:
        """What puts an input where kernels read it."""
        dtype, shape, stage = port.dtype, port.spec.shape, empty(port.spec.fixed, port.dtype)
        self._table[place] = home = _address(stage)

        def checked(given: Any) -> Array:
            fits = type(given) is np.ndarray and given.dtype is dtype and given.shape == shape
            return given if fits else port.checked(given)

        def copied(given: Any) -> None:
            stage[...] = checked(given)

        def taken(given: Any) -> Array:
            array = checked(given)
            start = _address(array)
            if start % port.alignment or not array.flags.c_contiguous:
                stage[...], start = array, home
            self._table[place] = start
            return array

        return copied if stage.nbytes <= SMALL else taken

    def _giving(
        self, place: int, shape: tuple[int, ...], dtype: np.dtype[Any]
    ) -> tuple[Callable[[], Any], Callable[[Any], Array]]:
        """What makes room for a result, and what makes of that an array of the caller's."""
        stage = empty(shape, dtype)
        self._table[place] = _address(stage)
        if stage.nbytes <= SMALL:
            return lambda: None, lambda _: stage.copy()

        def begin() -> Array:
            array = np.empty(shape, dtype)
            self._table[place] = _address(array)
            return array

        return begin, lambda array: array


def by_address(
    library: Any, artifact: Artifact, ports: Sequence[Port], weights: Sequence[Tensor]
) -> ByAddress | None:
    """The calls of a loaded artifact, or None where they need the virtual machine."""
    specs = [*artifact.inputs, *artifact.outputs]
    if any(isinstance(spec, OpaqueSpec) or dims.is_open(spec.shape) for spec in specs):
        return None
    if not all(in_dlpack(np.dtype(spec.dtype)) for spec in specs):
        return None
    for kernels in library.imports:
        if kernels.implements_function(addresses.RUN):
            return ByAddress(kernels, artifact, ports, weights)
    return None


def _address(array: Array) -> int:
    return int(array.__array_interface__["data"][0])
