"""Device functions that kernels call by name: what TVM has no words for, as inline PTX or C++."""

import re
from functools import cache
from pathlib import Path

from hybridc.compiler.cuda import wgmma

_BOUNDS = re.compile(r"__launch_bounds__\((\d+)\)")
# The prefix of all of them; a source that calls none of them gets none.
PREFIX = "hybridc_"
# What is PTX; and what is plain C++ on top of it, a file for each kind of kernel.
_FILES = ("prelude.cuh", "softmax.cuh", "vectors.cuh")


def joined(code: str) -> str:
    """A CUDA source with the prelude before its first kernel, if it calls into it.

    Its kernels may then have all registers that one block of them leaves: without a word about it,
    ptxas spilled some for the sake of a second block (int8 convolution, sm_80).
    """
    if PREFIX not in code:
        return code
    code = _BOUNDS.sub(r"__launch_bounds__(\1, 1)", code)
    at = code.index('extern "C" __global__')
    warpgroups = wgmma.text(code) if f"{PREFIX}wgmma" in code else ""
    return f"{code[:at]}{text()}\n{warpgroups}{code[at:]}"


@cache
def text() -> str:
    """The prelude."""
    return "\n".join((Path(__file__).parent / name).read_text() for name in _FILES)
