"""Products of two activations: which are read as they lie, and that both ways compute the same."""

import json

import numpy as np
import pytest
from kernel_builders import floats, op, operator

from hybridc.compiler import target
from hybridc.compiler.building.build import compile_kernel
from hybridc.compiler.runtime.tensors import to_numpy, to_tensor
from hybridc.schedules.batch_matmul import BatchMatmul, Product

ZEN_4 = target.parse(
    json.dumps({"kind": "llvm", "mcpu": "znver4", "num-cores": 2, "caches": [2**15, 2**20, 2**25]})
)


def matched(*shapes: tuple[int, ...], cpu: target.Target = ZEN_4) -> Product:
    (func,) = operator(op.matmul, *floats(*shapes))(cpu)
    found = BatchMatmul().match(func, cpu)
    assert isinstance(found, Product), found
    return found


@pytest.mark.parametrize(
    ("left", "right", "gap"),
    [
        ((2, 9, 13), (2, 13, 32), 128),
        ((2, 9, 13), (13, 48), 192),
        ((2, 9, 13), (2, 13, 40), 0),  # no whole vectors
    ],
)
def test_whole_vectors_may_be_read_as_they_lie(
    left: tuple[int, ...], right: tuple[int, ...], gap: int
) -> None:
    found = matched(left, right)
    assert found.gap == gap
    assert ("pack" in BatchMatmul().knobs(found)) == (gap > 0)


@pytest.mark.parametrize(
    ("depth", "columns", "packs"), [(128, 64, 0), (64, 128, 0), (100, 1024, 0), (400, 1024, 1)]
)
def test_rows_that_crowd_the_sets_of_a_cache_are_packed(
    depth: int, columns: int, packs: int
) -> None:
    found = matched((2, 128, depth), (2, depth, columns))
    assert BatchMatmul().default(found, ZEN_4)["pack"] == packs


@pytest.mark.parametrize("pack", [0, 1])
@pytest.mark.parametrize("tile", [(4, 1, 1, 1), (5, 2, 2, 1), (3, 2, 1, 2), (16, 1, 9, 9)])
@pytest.mark.parametrize("lead", [(), (2,)])
def test_either_way_computes_the_product(
    lead: tuple[int, ...], tile: tuple[int, int, int, int], pack: int
) -> None:
    draw, here = np.random.default_rng(0), target.parse("cpu", threads=2)
    a, b = (draw.standard_normal(s).astype("float32") for s in ((2, 29, 13), (*lead, 13, 64)))
    match = matched(a.shape, b.shape, cpu=here)
    point = {**dict(zip(("rows", "vectors", "chunk", "panels"), tile, strict=True)), "pack": pack}
    out = to_tensor(np.zeros((2, 29, 64), "float32"))
    kernel = compile_kernel(BatchMatmul().schedule(match, point).mod["main"], here)
    kernel["main"](to_tensor(a), to_tensor(b), out)
    np.testing.assert_allclose(to_numpy(out, np.dtype("float32")), a @ b, rtol=1e-5, atol=1e-5)
