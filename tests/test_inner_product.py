"""Winograd's inner product of bytes: exact for all extremes, and chosen where it pays."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_contractions import FEW

from hybridc.compiler import target
from hybridc.compiler.building.build import compile_kernel
from hybridc.compiler.kernels.products import inner_product, packing
from hybridc.compiler.model import Array
from hybridc.compiler.runtime.tensors import to_numpy, to_tensor
from hybridc.schedules.dense import Dense

CPU = target.parse("avx2", threads=2)
DRAW = np.random.default_rng(0)
# Activations and weights.
VALUES = {
    "drawn": (np.arange(256), np.arange(-128, 128)),
    "mixed": (np.array([0, 255]), np.array([-128, 127])),
    "largest": (np.array([255]), np.array([127])),
    "smallest": (np.array([255]), np.array([-128])),
}


def multiplied(x: Array, weight: Array, point: Any = None) -> Array:
    """The kernel's product."""
    columns = weight.shape[1]
    packed = packing.pack_matrix(weight, CPU.lanes(), 2)
    func = inner_product.dense(x.shape, packed, columns, "uint8")
    rule = Dense()
    match: Any = rule.match(func, CPU)
    chosen = rule.canonical(match, point) if point else rule.default(match, CPU)
    kernel = compile_kernel(rule.schedule(match, chosen).mod["main"], CPU)
    out = to_tensor(np.full((*x.shape[:-1], columns), 77, np.int32))
    terms = inner_product.column_terms(weight)
    kernel["main"](*map(to_tensor, (x, packed, terms)), out)
    return to_numpy(out, np.dtype(np.int32))


@FEW
@given(
    lead=st.sampled_from([(1,), (17,), (2, 3), (1, 5, 7), (29,)]),
    eights=st.integers(1, 9),
    columns=st.integers(1, 45),
    kind=st.sampled_from(sorted(VALUES)),
    point=st.sampled_from([None, {"rows": 3, "vectors": 2, "chunk": 2, "panels": 1}]),
)
def test_bytes_are_multiplied_exactly(
    lead: tuple[int, ...], eights: int, columns: int, kind: str, point: Any
) -> None:
    depth = 8 * eights
    data, weights = VALUES[kind]
    x = DRAW.choice(data, (*lead, depth)).astype(np.uint8)
    weight = DRAW.choice(weights, (depth, columns)).astype(np.int8)
    wanted = x.astype(np.int64) @ weight.astype(np.int64)
    np.testing.assert_array_equal(multiplied(x, weight, point), wanted)


def test_the_deepest_product_does_not_overflow() -> None:
    x = np.full((2, 2**14), 255, np.uint8)
    for extreme in (-128, 127):
        weight = np.full((2**14, 3), extreme, np.int8)
        wanted = x.astype(np.int64) @ weight.astype(np.int64)
        np.testing.assert_array_equal(multiplied(x, weight), wanted)


@pytest.mark.parametrize(
    ("rows", "depth", "columns", "cpu", "wanted"),
    [
        (197, 768, 768, "avx2", True),
        (784, 512, 128, "avx2", True),
        (1, 768, 768, "avx2", False),  # few rows wait for memory
        (3136, 64, 64, "avx2", False),  # what is taken off costs more than what is saved
        (3136, 770, 64, "avx2", False),  # no whole quads
        (197, 768, 768, "avx512", False),
    ],
)
def test_it_is_chosen_where_it_pays(
    rows: int, depth: int, columns: int, cpu: str, wanted: bool
) -> None:
    assert inner_product.pays(rows, depth, columns, target.parse(cpu, threads=2)) is wanted
