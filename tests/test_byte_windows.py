"""Products of bytes in windows: exact for all extremes, and chosen where they pay."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_contractions import FEW

from hybridc.compiler import target
from hybridc.compiler.build import compile_kernel
from hybridc.compiler.kernels import byte_windows
from hybridc.compiler.model import Array
from hybridc.compiler.tensors import to_numpy, to_tensor
from hybridc.schedules.byte_windows import ByteWindows

CPU = target.parse("avx2", threads=2)
DRAW = np.random.default_rng(0)
BELL = np.clip(np.round(DRAW.normal(0, 38, 4096)), -127, 127)
# Activations and weights.
VALUES = {
    "bell": (np.arange(256), BELL),
    "bell, largest": (np.array([255]), BELL),
    "drawn": (np.arange(256), np.arange(-128, 128)),
    "mixed": (np.array([0, 255]), np.array([-128, 127])),
    "largest": (np.array([255]), np.array([127])),
    "smallest": (np.array([255]), np.array([-128])),
    "zero": (np.arange(256), np.array([0])),
}


def multiplied(x: Array, packed: tuple[Array, Array], columns: int, point: Any = None) -> Array:
    """The kernel's product."""
    func = byte_windows.dense(x.shape, packed, columns, "uint8")
    rule = ByteWindows()
    match: Any = rule.match(func, CPU)
    chosen = rule.canonical(match, point) if point else rule.default(match, CPU)
    kernel = compile_kernel(rule.schedule(match, chosen).mod["main"], CPU)
    return run(kernel, x, packed, columns)


def run(kernel: Any, x: Array, packed: tuple[Array, Array], columns: int) -> Array:
    """A compiled kernel's product."""
    out = to_tensor(np.full((*x.shape[:-1], columns), 77, np.int32))
    kernel["main"](*map(to_tensor, (x, *packed)), out)
    return to_numpy(out, np.dtype(np.int32))


@FEW
@given(
    lead=st.sampled_from([(17,), (2, 3), (1, 5, 7), (29,), (64,), (1, 3, 8)]),
    depth=st.sampled_from([16, 17, 31, 32, 40, 64, 99, 144]),
    panels=st.integers(1, 6),
    kind=st.sampled_from(sorted(VALUES)),
    point=st.sampled_from(
        [None, {"rows": 3, "vectors": 1, "chunk": 2, "panels": 1}, {"rows": 8, "vectors": 1, "chunk": 1, "panels": 2}]
    ),
)
def test_bytes_are_multiplied_exactly(
    lead: tuple[int, ...], depth: int, panels: int, kind: str, point: Any
) -> None:
    data, weights = VALUES[kind]
    x = DRAW.choice(data, (*lead, depth)).astype(np.uint8)
    weight = DRAW.choice(weights, (depth, 8 * panels)).astype(np.int8)
    wanted = x.astype(np.int64) @ weight.astype(np.int64)
    got = multiplied(x, byte_windows.pack(weight), 8 * panels, point)
    np.testing.assert_array_equal(got, wanted)
