"""The process that candidates are built and run in; `pool` holds the other end.

Every request says all that it needs, so that a process that was killed is replaced by a new one
and nothing else has to be said again.
"""

import importlib
import os
import resource
import time
from collections.abc import Callable, Sequence
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np

from hybridc.compiler import tensors
from hybridc.compiler.child import Json, serve
from hybridc.compiler.log.record import Verdict
from hybridc.compiler.model import Array
from hybridc.compiler.tuning import answers
from hybridc.compiler.tuning.features import Features
from hybridc.compiler.tuning.flush import Flush
from hybridc.compiler.tuning.kernel import Kernel
from hybridc.compiler.tuning.racing import Race, Sample, Take

Run = Callable[[], object]


class CandidateError(Exception):
    """The candidate's own code gave up; anything else that is raised here is a fault of ours."""


class Desk:
    """Answers the requests; keeps the kernel that it was asked about last."""

    def __init__(self) -> None:
        self._path = ""
        self._kernel: Kernel | None = None
        self._arguments: Arguments | None = None
        self._features: Features | None = None
        self._flush: Flush | None = None

    def __call__(self, request: Json) -> Json:
        """Do what the request's `do` says."""
        given = dict(request)
        answer: Json = getattr(self, given.pop("do"))(**given)
        return answer

    def begin(self, memory: int, cpus: Sequence[int]) -> Json:
        """Limit what this process may take, beyond what TVM took by now, and where it runs."""
        importlib.import_module("tvm")  # what it takes is not the candidate's
        status = Path("/proc/self/status").read_text()
        held = int(status.partition("VmData:")[2].split()[0]) * 2**10
        resource.setrlimit(resource.RLIMIT_DATA, (held + memory, held + memory))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.sched_setaffinity(0, cpus)
        return {}

    def build(self, kernel: str, point: dict[str, int] | None, library: str) -> Json:
        """Schedule and compile; what the rule or the code generation raises is told."""
        self._open(kernel).compile(point, Path(library))
        return {}

    def features(self, kernel: str, points: list[dict[str, int]], rows: str) -> Json:
        """Keep what the cost model sees of points."""
        opened = self._open(kernel)
        if self._features is None:
            self._features = Features(opened.func, opened.rule, opened.match, opened.target)
        np.save(rows, self._features.of(points))
        return {}

    def reference(self, kernel: str, library: str, wanted: str) -> Json:
        """Run the unscheduled function once and keep what it computes."""
        arguments = self._prepared(kernel)
        run = arguments.call(library)
        arguments.reset()
        start = time.perf_counter()
        run()
        seconds = time.perf_counter() - start
        flat = [array.reshape(-1).view(np.uint8) for array in arguments.arrays]
        np.savez(wanted, *flat)
        return {"seconds": seconds}

    def measure(self, kernel: str, library: str, wanted: str | None, **how: Any) -> Json:
        """Compare what a library computes with what is wanted (None: it was), then time it.

        `how` are the `race`, the `mode` of the caches, and the `incumbent`'s seconds, if any.
        """
        arguments = self._prepared(kernel)
        run = arguments.call(library)
        if wanted is not None:
            arguments.reset()
            run()
            if wrong := arguments.difference(wanted):
                return {"verdict": Verdict.WRONG, "detail": wrong}
        rules = Race(**how["race"])
        timer = self._cold(run, arguments) if how["mode"] == "cold" else _warm(run, rules.sample)
        samples, disturbed = rules.run(timer, time.perf_counter, how["incumbent"])
        return {"verdict": Verdict.OK, "seconds": samples, "disturbed": disturbed}

    def _open(self, path: str) -> Kernel:
        if self._kernel is None or path != self._path:
            self._arguments, self._features = None, None
            self._path, self._kernel = path, Kernel.load(Path(path))
        return self._kernel

    def _prepared(self, path: str) -> "Arguments":
        kernel = self._open(path)
        if self._arguments is None:
            self._arguments = Arguments(kernel)
        return self._arguments

    def _cold(self, run: Run, arguments: "Arguments") -> Take:
        """Single calls, each with what it reads in memory."""
        if self._flush is None:
            self._flush = Flush(arguments.kernel.target)
        flush = self._flush

        def take(count: int) -> list[Sample]:
            samples: list[Sample] = []
            for _ in range(count):
                flush()
                samples.append(_timed(run, 1))
            return samples

        return take


def _warm(run: Run, sample: float) -> Take:
    """Calls one after another; a sample is the mean of as many as take `sample` seconds."""
    number = max(1, ceil(sample / max(min(_timed(run, 1)[0] for _ in range(3)), 1e-9)))

    def take(count: int) -> list[Sample]:
        run()  # what happened since the last samples is not theirs
        return [_timed(run, number) for _ in range(count)]

    return take


def _timed(run: Run, number: int) -> Sample:
    """The mean of some calls, and whether the system let nothing else run on our cores."""
    switches = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
    start = time.perf_counter()
    for _ in range(number):
        run()
    seconds = (time.perf_counter() - start) / number
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw == switches


class Arguments:
    """A kernel's parameters, filled with the same random numbers in every process."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self._given = answers.feed(kernel.func)
        self.arrays = [tensors.empty(array.shape, array.dtype) for array in self._given]
        self._tensors = [tensors.to_tensor(array) for array in self.arrays]
        self._wanted: tuple[str, list[Array]] = ("", [])

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


if __name__ == "__main__":
    serve(Desk())
