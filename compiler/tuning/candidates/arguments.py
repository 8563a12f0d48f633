"""A kernel's parameters in the process that runs candidates, and how its calls are timed there."""

import resource
import time
from collections.abc import Callable, Sequence
from itertools import cycle
from math import ceil
from typing import Any

import numpy as np

from hybridc.compiler.model import Array
from hybridc.compiler.runtime import tensors
from hybridc.compiler.tuning.candidates import answers
from hybridc.compiler.tuning.candidates.racing import Sample, Take
from hybridc.compiler.tuning.kernel import Kernel

Run = Callable[[], object]

# Copies of weights fill the last cache so many times, and are so many at most: they are of small
# kernels then, for which it matters little where weights come from.
_TIMES, _MOST = 2, 256


class CandidateError(Exception):
    """The candidate's own code gave up; anything else that is raised here is a fault of ours."""


class Arguments:
    """A kernel's parameters, filled with the same random numbers in every process.

    Where the model has the weights in memory, calls take copies of them in turn, which push each
    other out of the caches; activations stay there, as other kernels have just written them.
    """

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self._given = answers.feed(kernel.func)
        self.arrays = [tensors.empty(array.shape, array.dtype) for array in self._given]
        self._tensors = [tensors.to_tensor(array) for array in self.arrays]
        self._wanted: tuple[str, list[Array]] = ("", [])
        self._turns = cycle([self._tensors, *self._with_copies()])

    def reset(self) -> None:
        """Give every parameter what it had at first."""
        for array, given in zip(self.arrays, self._given, strict=True):
            np.copyto(array, given)

    def call(self, library: str) -> Run:
        """The library's kernel on these arguments."""
        from tvm import runtime

        main, turns = runtime.load_module(library)["main"], self._turns

        def run() -> None:
            try:
                main(*next(turns))
            except Exception as error:
                raise CandidateError(f"{type(error).__name__}: {error}") from error

        return run

    def fetch(self) -> None:
        """Have in `arrays` what the last call wrote."""

    def timer(self, run: Run, sample: float) -> Take:
        """Calls one after another; a sample is the mean of as many as take `sample` seconds."""
        number = max(1, ceil(sample / max(min(self.timed(run, 1)[0] for _ in range(3)), 1e-9)))

        def take(count: int) -> list[Sample]:
            run()  # what happened since the last samples is not theirs
            return [self.timed(run, number) for _ in range(count)]

        return take

    def _with_copies(self) -> Sequence[list[Any]]:
        """The parameters with other copies of the weights, where weights are in memory."""
        target, weights = self.kernel.target, self.kernel.weights
        size = sum(self.arrays[place].nbytes for place in weights)
        if self.kernel.mode == "warm" or target.gpu is not None or not size:
            return ()
        return [
            [
                self._copied(place) if place in weights else tensor
                for place, tensor in enumerate(self._tensors)
            ]
            for _ in range(min(_MOST, ceil(_TIMES * target.l3 / size)))
        ]

    def _copied(self, place: int) -> Any:
        array = tensors.empty(self.arrays[place].shape, self.arrays[place].dtype)
        np.copyto(array, self._given[place])
        return tensors.to_tensor(array)

    def timed(self, run: Run, number: int) -> Sample:
        """The mean of some calls, and whether the system let nothing else run on our cores."""
        switches = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
        start = time.perf_counter()
        for _ in range(number):
            run()
        seconds = (time.perf_counter() - start) / number
        return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw == switches

    def difference(self, wanted: str) -> str | None:
        """What is wrong after a run with what the arguments hold; None if nothing is."""
        if self._wanted[0] != wanted:
            with np.load(wanted) as stored:
                flat = [stored[f"arr_{i}"] for i in range(len(self.arrays))]
            shaped = zip(flat, self.arrays, strict=True)
            self._wanted = wanted, [one.view(a.dtype).reshape(a.shape) for one, a in shaped]
        names = [f"parameter {i}" for i in range(len(self.arrays))]
        rounds = any("float" in dtype for dtype in self.kernel.dtypes)
        right = self._wanted[1]
        terms = self.kernel.terms
        return answers.first_difference(names, self.arrays, right, terms, quantised=rounds)
