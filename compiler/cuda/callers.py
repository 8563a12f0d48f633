"""Callers who keep results on the GPU: in memory of their library, in the order of its work.

Torch allocates at no cost, and what its work is ordered by is known; of other libraries it is not.
"""

from typing import Any

import tvm

from hybridc.compiler.runtime.tensors import Tensor


def room(library: Any, like: Tensor, device: Any) -> Any:
    """Memory for a result on the GPU, a tensor of torch's where the caller's library is torch."""
    kind = getattr(library, str(like.dtype), None) if allocates(library) else None
    if kind is None:
        return tvm.runtime.empty(tuple(like.shape), str(like.dtype), device)
    return library.empty(tuple(like.shape), dtype=kind, device=str(like.device))


def stream(library: Any, index: int) -> int | None:
    """Torch's current stream on a GPU; None where that is not known, or torch has no GPU yet."""
    if not allocates(library) or not library.cuda.is_initialized():
        return None
    return int(library.cuda.current_stream(index).cuda_stream)


def allocates(library: Any) -> bool:
    """Whether results are to be in the library's own memory: torch's are."""
    return getattr(library, "__name__", "") == "torch"
