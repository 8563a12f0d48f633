"""Device functions that kernels call by name: what TVM has no words for, as inline PTX or C++."""

import re
from functools import cache
from pathlib import Path

from hybridc.compiler.cuda import extremes, wgmma

_BOUNDS = re.compile(r"__launch_bounds__\((\d+)\)")
# The prefix of all of them; a source that calls none of them gets none.
PREFIX = "hybridc_"
_KERNEL = 'extern "C" __global__ void '
# TVM includes it from sm_80 on; before, bfloat16 is computed in float32 by what it defines.
_BFLOAT16, _INCLUDED = "nv_bfloat16", "#include <cuda_bf16.h>\n"
# What a kernel calls whose blocks form clusters: it says of how many.
_CLUSTER = re.compile(rf"{PREFIX}cluster<(\d+)>")
# What a kernel calls that leaves registers for others of its blocks: it says for how many in all.
_RESIDENT = re.compile(rf"{PREFIX}resident<(\d+)>")
_ALONE = re.compile(r"(__launch_bounds__\(\d+, )1\)")
# Loops that are not to be written out, by what their variable is called: TVM has no other word.
_ROLLED = re.compile(r"^( *)(for \(int rolled)", re.MULTILINE)
# What is PTX; and what is plain C++ on top of it, a file for each kind of kernel.
_FILES = ("prelude.cuh", "functions.cuh", "softmax.cuh", "vectors.cuh", "weights.cuh")


def joined(code: str) -> str:
    """A CUDA source with the prelude before its first kernel, if it calls into it.

    Kernels that are written for the prelude may have all registers that one block of them leaves:
    without a word about it, ptxas spilled some for the sake of a second block (int8 convolution,
    sm_80).
    """
    if _BFLOAT16 in code:
        code = f"{_INCLUDED}{code}"
    if PREFIX in code:
        code = _BOUNDS.sub(r"__launch_bounds__(\1, 1)", code)
        code = _ROLLED.sub(r"\1#pragma unroll 1\n\1\2", code)
    head, *kernels = code.split(_KERNEL)
    kernels = [*map(_resident, kernels)]
    kernels = [*map(extremes.exact, kernels)]
    if not any(PREFIX in kernel for kernel in kernels):
        return code
    warpgroups = wgmma.text(code) if f"{PREFIX}wgmma" in code else ""
    return "".join([head, text(), "\n", warpgroups, *map(_clustered, kernels)])


def _resident(kernel: str) -> str:
    """A kernel with the blocks of it that a multiprocessor has room for, where it asks for some."""
    found = _RESIDENT.search(kernel)
    return _ALONE.sub(rf"\g<1>{found[1]})", kernel, count=1) if found else kernel


def _clustered(kernel: str) -> str:
    """A kernel with the size of its clusters, where its blocks form such."""
    found = _CLUSTER.search(kernel)
    return f"{_KERNEL}{f'__cluster_dims__({found[1]}, 1, 1) ' if found else ''}{kernel}"


@cache
def text() -> str:
    """The prelude."""
    return "\n".join((Path(__file__).parent / name).read_text() for name in _FILES)
