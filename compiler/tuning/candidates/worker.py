"""The process that candidates are built and run in; `pool` holds the other end.

Every request says all that it needs, so that a process that was killed is replaced by a new one
and nothing else has to be said again.
"""

import importlib
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hybridc.compiler.log.record import Verdict
from hybridc.compiler.processes import rlimits
from hybridc.compiler.processes.child import Json, serve
from hybridc.compiler.tuning.candidates.arguments import Arguments
from hybridc.compiler.tuning.candidates.racing import Race
from hybridc.compiler.tuning.kernel import Kernel
from hybridc.compiler.tuning.prediction.features import Features


class Worker:
    """Answers the requests; keeps the kernel that it was asked about last."""

    def __init__(self) -> None:
        self._path = ""
        self._kernel: Kernel | None = None
        self._arguments: Arguments | None = None
        self._features: Features | None = None

    def __call__(self, request: Json) -> Json:
        """Do what the request's `do` says."""
        given = dict(request)
        answer: Json = getattr(self, given.pop("do"))(**given)
        return answer

    def begin(self, memory: int, cpus: Sequence[int]) -> Json:
        """Limit what this process may take, beyond what TVM took by now, and where it runs.

        Without a limit on `memory` where it is to use a GPU, whose driver maps all of that.
        """
        importlib.import_module("tvm")  # what it takes is not the candidate's
        if memory:
            rlimits.memory(memory)
        rlimits.no_dump()
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
        arguments.fetch()
        seconds = time.perf_counter() - start
        flat = [array.reshape(-1).view(np.uint8) for array in arguments.arrays]
        np.savez(wanted, *flat)
        return {"seconds": seconds}

    def measure(self, kernel: str, library: str, wanted: str | None, **how: Any) -> Json:
        """Compare what a library computes with what is wanted (None: it was), then time it.

        `how` are the `race` and the `incumbent`'s seconds, if any.
        """
        arguments = self._prepared(kernel)
        run = arguments.call(library)
        if wanted is not None:
            arguments.reset()
            run()
            arguments.fetch()
            if wrong := arguments.difference(wanted):
                return {"verdict": Verdict.WRONG, "detail": wrong}
        rules = Race(**how["race"])
        timer = arguments.timer(run, rules.sample)
        samples, disturbed = rules.run(timer, time.perf_counter, how["incumbent"])
        return {"verdict": Verdict.OK, "seconds": samples, "disturbed": disturbed}

    def _open(self, path: str) -> Kernel:
        if self._kernel is None or path != self._path:
            self._arguments, self._features = None, None
            self._path, self._kernel = path, Kernel.load(Path(path))
        return self._kernel

    def _prepared(self, path: str) -> Arguments:
        kernel = self._open(path)
        if self._arguments is None:
            if kernel.target.gpu is None:
                self._arguments = Arguments(kernel)
            else:
                # It needs a driver.
                from hybridc.compiler.tuning.candidates.gpu_arguments import GpuArguments

                self._arguments = GpuArguments(kernel)
        return self._arguments


if __name__ == "__main__":
    serve(Worker())
