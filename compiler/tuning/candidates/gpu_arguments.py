"""A candidate on a GPU: its parameters there, time by the GPU's events, faults that are told.

The process has one GPU, the first that it may see.  A fault of a kernel may cost it that GPU for
good; then it says so, and another process takes its place.
"""

from collections.abc import Generator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import tvm

from hybridc.compiler.cuda import codegen, faults, runtime, timing
from hybridc.compiler.cuda.driver import NoGpuError
from hybridc.compiler.cuda.link import Link
from hybridc.compiler.errors import HybridcError
from hybridc.compiler.runtime.tensors import to_tensor
from hybridc.compiler.tuning.candidates.arguments import Arguments, CandidateError, Run
from hybridc.compiler.tuning.candidates.racing import Sample, Take
from hybridc.compiler.tuning.kernel import Kernel, machine_code

_TIMES = 2  # of the L2 cache, which is written to empty it


class LostGpuError(CandidateError):
    """A kernel's fault cost this process its GPU."""


class GpuArguments(Arguments):
    """The parameters as tensors of the GPU; `arrays` are copies of them in the host's memory."""

    def __init__(self, kernel: Kernel, link: Link | None = None, device: Any = None) -> None:
        super().__init__(kernel)
        self._link = link or _link()
        self._device = runtime.device(0) if device is None else device
        with told():
            self._tensors = [to_tensor(array).copyto(self._device) for array in self.arrays]

    def reset(self) -> None:
        """Give every parameter what it had at first."""
        super().reset()
        with told():
            for tensor, array in zip(self._tensors, self.arrays, strict=True):
                tensor.copyfrom(to_tensor(array))

    def fetch(self) -> None:
        """Wait for the GPU, and copy back what it wrote."""
        with told():
            self._link.finish()
            for tensor, array in zip(self._tensors, self.arrays, strict=True):
                # Of types that numpy lacks, the bytes.
                flat = tensor.copyto(tvm.cpu())._create_view((array.nbytes,), "uint8")
                np.copyto(array.reshape(-1).view(np.uint8), np.from_dlpack(flat))

    def call(self, library: str) -> Run:
        """The library's kernel on these parameters; it returns before the GPU is done."""
        with told():
            loaded = codegen.load(library, machine_code(Path(library)).read_bytes())
        main, given, device, link = loaded["main"], self._tensors, self._device, self._link
        device.set_raw_stream(link.stream)

        def run() -> None:
            with told():
                main(*given)

        return run

    def timer(self, run: Run, sample: float) -> Take:
        """Many calls as one launch; of a kernel with cold caches each after the L2 is emptied.

        Small kernels take less time than their launches, which models replay as graphs, too.
        """
        if self.kernel.mode == "warm":
            return self._together(run, sample)

        run()  # code goes to the GPU at its first call

        def take(count: int) -> list[Sample]:
            samples: list[Sample] = []
            for _ in range(count):
                self.flush()
                samples.append(self.timed(run, 1))
            return samples

        return take

    def _together(self, run: Run, sample: float) -> Take:
        with told():
            run()  # code goes to the GPU at its first call, which says nothing of how many fit
            # What cannot be recorded is timed as it is; a GPU that is lost says so again then.
            record = lambda calls: self._link.record(calls)[0].replay  # noqa: E731
            refusals = (HybridcError, CandidateError)
            calls, number = timing.together(self._link, run, record, refusals)
        take = super().timer(calls, sample)

        def each(count: int) -> list[Sample]:
            return [(seconds / number, undisturbed) for seconds, undisturbed in take(count)]

        return each

    def flush(self) -> None:
        """Write more than the L2 cache holds."""
        assert self.kernel.target.gpu is not None
        size = _TIMES * self.kernel.target.gpu.l2
        with told():
            self._link.clear(_written(self._link, size), size)

    def timed(self, run: Run, number: int) -> Sample:
        """The mean of some calls between two events of the GPU, which nothing else disturbs."""
        with told():
            return self._link.timed(run, number), True


@cache
def _link() -> Link:
    """The stream of this process, on the one GPU that it may see."""
    return Link(0)


@cache
def _written(link: Link, size: int) -> int:
    """Memory that is there to be written, for all kernels in turn."""
    return link.allocated(size)


@contextmanager
def told() -> Generator[None]:
    """Say of what goes wrong on the GPU within whether the GPU is lost.

    Raises CandidateError, or LostGpuError.
    """
    try:
        yield
    except CandidateError:
        raise
    except (NoGpuError, RuntimeError, ValueError) as error:
        said = f"{type(error).__name__}: {error}"
        lost = faults.is_sticky(said)
        raise (LostGpuError(said) if lost else CandidateError(said)) from error
