"""Vectors of packed weights: whole, or half where that leaves less unused; none computed wrong."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hybridc.compiler import target
from hybridc.compiler.building.build import compile_kernel
from hybridc.compiler.hardware.machine import Machine
from hybridc.compiler.kernels.products import contractions, packing, vector_width
from hybridc.schedules.dense import Dense

HALVING = replace(target.parse("avx512", threads=2), machine=Machine(fma_per_cycle=1.0))


@pytest.mark.parametrize(
    ("outputs", "groups", "lanes"),
    [(64, 1, 16), (24, 1, 8), (8, 1, 8), (40, 1, 16), (100, 1, 16), (256, 32, 8), (512, 32, 16)],
)
def test_half_vectors_where_they_leave_less_unused(outputs: int, groups: int, lanes: int) -> None:
    assert vector_width.lanes_for(outputs, groups, HALVING) == lanes


def test_whole_vectors_where_half_ones_are_no_faster() -> None:
    two = replace(HALVING, machine=Machine(fma_per_cycle=2.0))
    assert vector_width.lanes_for(24, 1, two) == two.lanes()
    narrow = target.parse("avx2", threads=2)
    assert vector_width.lanes_for(4, 1, narrow) == narrow.lanes()


@pytest.mark.parametrize("lanes", [8, 16])
@pytest.mark.parametrize(("rows", "depth", "columns"), [(1, 7, 200), (13, 40, 205), (61, 3, 97)])
def test_products_of_either_width(rows: int, depth: int, columns: int, lanes: int) -> None:
    """Tiles and panels that leave a rest, and prefetches beyond the last panel."""
    cpu = target.parse("cpu", threads=2)
    weight = np.random.default_rng(0).standard_normal((depth, columns)).astype("float32")
    packed = packing.pack_matrix(weight, lanes)
    rule = Dense()
    match: Any = rule.match(contractions.dense((rows, depth), packed, columns, "float32"), cpu)
    for vectors in (1, 3):
        point = {**rule.default(match, cpu), "vectors": vectors, "rows": min(rows, 5), "chunk": 2}
        kernel = compile_kernel(rule.schedule(match, point).mod["main"], cpu)
        x = np.random.default_rng(1).standard_normal((rows, depth)).astype("float32")
        np.testing.assert_allclose(
            _run(kernel, x, packed, columns), x @ weight, rtol=1e-4, atol=1e-5
        )


def _run(kernel: Any, x: NDArray[Any], packed: NDArray[Any], columns: int) -> NDArray[Any]:
    import tvm

    out = tvm.runtime.tensor(np.zeros((len(x), columns), "float32"))
    kernel.jit()["main"](tvm.runtime.tensor(x), tvm.runtime.tensor(packed), out)
    return np.asarray(out.numpy())
