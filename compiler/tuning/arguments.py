"""A kernel's parameters in the process that runs candidates, and how its calls are timed there."""

import resource
import time
from collections.abc import Callable
from math import ceil

import numpy as np

from hybridc.compiler import tensors
from hybridc.compiler.model import Array
from hybridc.compiler.tuning import answers
from hybridc.compiler.tuning.flush import Flush
from hybridc.compiler.tuning.kernel import Kernel
from hybridc.compiler.tuning.racing import Sample, Take

Run = Callable[[], object]


class CandidateError(Exception):
    """The candidate's own code gave up; anything else that is raised here is a fault of ours."""


class Arguments:
    """A kernel's parameters, filled with the same random numbers in every process."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self._given = answers.feed(kernel.func)
        self.arrays = [tensors.empty(array.shape, array.dtype) for array in self._given]
        self._tensors = [tensors.to_tensor(array) for array in self.arrays]
        self._wanted: tuple[str, list[Array]] = ("", [])
        self._flush: Flush | None = None

    def reset(self) -> None:
        """Give every parameter what it had at first."""
        for array, given in zip(self.arrays, self._given, strict=True):
            np.copyto(array, given)

    def call(self, library: str) -> Run:
        """The library's kernel on these arguments."""
        from tvm import runtime

        main, given = runtime.load_module(library)["main"], self._tensors

        def run() -> None:
            try:
                main(*given)
            except Exception as error:
                raise CandidateError(f"{type(error).__name__}: {error}") from error

        return run

    def fetch(self) -> None:
        """Have in `arrays` what the last call wrote."""

    def warm(self, run: Run, sample: float) -> Take:
        """Calls one after another; a sample is the mean of as many as take `sample` seconds."""
        number = max(1, ceil(sample / max(min(self.timed(run, 1)[0] for _ in range(3)), 1e-9)))

        def take(count: int) -> list[Sample]:
            run()  # what happened since the last samples is not theirs
            return [self.timed(run, number) for _ in range(count)]

        return take

    def cold(self, run: Run) -> Take:
        """Single calls, each with the weights in memory, and what else there is in the caches."""

        def take(count: int) -> list[Sample]:
            samples: list[Sample] = []
            for _ in range(count):
                self.flush()
                samples.append(self.timed(run, 1))
            return samples

        return take

    def flush(self) -> None:
        """Leave in the caches what the kernels before this one do: activations, no weights."""
        if self._flush is None:
            self._flush = Flush(self.kernel.target)
        self._flush()
        for place, (array, given) in enumerate(zip(self.arrays, self._given, strict=True)):
            if place not in self.kernel.weights:
                np.copyto(array, given)

    def timed(self, run: Run, number: int) -> Sample:
        """The mean of some calls, and whether the system let nothing else run on our cores."""
        switches = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
        start = time.perf_counter()
        for _ in range(number):
            run()
        seconds = (time.perf_counter() - start) / number
        return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw == switches

    def difference(self, wanted: str) -> str | None:
        """What is wrong after a run with what the arguments hold; None where nothing is."""
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
