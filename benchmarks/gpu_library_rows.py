"""The rows of `gpu.py` for products that a library may compute: whatever is chosen by measuring."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from gpu_kernel_rows import Case, beside_torch, figures, off_by, product, widened
from gpu_rows import Cells, Machine, Row, error

from hybridc.compiler.cuda import timing

_SHAPES = ((4096, 4096, 4096), (4096, 3072, 768), (128, 3072, 768))
_LIBRARY = "cublaslt"
_TABLE = "matrix products, with libraries"
_SECONDS = 30


def products() -> Iterator[Row]:
    """Products of fp16 by `backends="tvm,cublaslt"`, beside torch's (cuBLAS)."""
    for shape in _SHAPES:
        name = f"{' x '.join(map(str, shape))}, float16"
        yield Row(_TABLE, name, _SECONDS, partial(_measured, shape), 4)


def _measured(shape: Sequence[int], machine: Machine, _: Path) -> Cells:
    machine.wants_torch()
    case = product(shape, "float16", machine)
    drawn = np.random.default_rng(0)
    arrays = [
        (drawn.standard_normal(each, np.float32) / 8).astype(dtype) for each, dtype in case.operands
    ]
    session, found = _session(case, arrays, machine)
    names = [spec.name for spec in session.get_inputs()]
    feed = dict(zip(names, arrays, strict=True))
    right = case.peer(*widened(arrays, machine.torch_device))
    off = error(session.run(None, feed)[0], right)
    cells = {"by": found, "off by": off_by(off, "float16")}
    if machine.dry:
        return cells
    (samples,) = timing.in_turns([session.on_device(feed)])
    seconds = median(samples)
    return {
        **cells,
        **figures(case, "float16", seconds, machine),
        **beside_torch(case.peer, arrays, "float16", seconds, machine),
    }


def _session(case: Case, arrays: Sequence[Any], machine: Machine) -> tuple[Any, str]:
    """A session of the product as a model, and whose kernel it is."""
    import torch

    from hybridc.compiler import driver
    from hybridc.compiler.runtime.session import InferenceSession

    class Product(torch.nn.Module):
        def forward(self, one: Any, other: Any) -> Any:
            return case.peer(one, other)

    made = driver.compile(
        torch.export.export(Product(), tuple(map(torch.from_numpy, arrays))),
        target="cpu" if machine.dry else "cuda",
        backends=("tvm",) if machine.dry else ("tvm", _LIBRARY),
        verify="off",
    )
    chosen = {offload.backend for offload in made.offloads} or {"tvm"}
    return InferenceSession(made), ", ".join(sorted(chosen))
