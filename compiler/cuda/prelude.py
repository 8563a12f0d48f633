"""Device functions that kernels call by name: what TVM has no words for, as inline PTX."""

from functools import cache
from pathlib import Path

# The prefix of all of them; a source that calls none of them gets none.
PREFIX = "hybridc_"


def joined(code: str) -> str:
    """A CUDA source with the prelude before its first kernel, if it calls into it."""
    if PREFIX not in code:
        return code
    at = code.index('extern "C" __global__')
    return f"{code[:at]}{text()}\n{code[at:]}"


@cache
def text() -> str:
    """The prelude."""
    return (Path(__file__).parent / "prelude.cuh").read_text()
