"""Caches emptied between runs: what a kernel finds when the rest of a model ran before it."""

import numpy as np

from hybridc.compiler import tensors
from hybridc.compiler.build import compile_kernel
from hybridc.compiler.target import Target

_TIMES = 2  # of the largest cache: then nothing that lay there is left, whatever it keeps longest
_WRITER = """
@T.prim_func(s_tir=True)
def main(buffer: T.Buffer((threads, vectors, lanes), "float32")):
    for thread in T.parallel(threads):
        for i in range(vectors):
            for lane in T.vectorized(lanes):
                buffer[thread, i, lane] = buffer[thread, i, lane] + T.float32(1)
"""


class Flush:
    """Writes more memory than the caches hold, on each of the target's threads its share.

    One thread alone would leave the private caches of the others as they were.
    """

    def __init__(self, target: Target) -> None:
        from tvm.script import from_source, tirx

        threads, lanes = target.threads, target.lanes()
        share = _TIMES * max(target.l3 // threads, target.l2)
        sizes = {"T": tirx, "threads": threads, "vectors": share // (4 * lanes), "lanes": lanes}
        self._main = compile_kernel(from_source(_WRITER, sizes), target)["main"]
        buffer = tensors.empty((threads, share // (4 * lanes), lanes), np.dtype(np.float32))
        buffer[:] = 0
        self._buffer = tensors.to_tensor(buffer)

    def __call__(self) -> None:
        """Empty the caches."""
        self._main(self._buffer)
