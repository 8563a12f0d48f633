"""Scattered rows over drawn shapes, against numpy."""

from typing import Any

import numpy as np
import pytest
from cpus import CPUS
from drawn import drawn
from hypothesis import strategies as st
from tvm import relax

from hybridc.compiler import pipeline, target
from hybridc.compiler.interfaces import Context
from hybridc.compiler.ir.evaluate import evaluate

COMBINED: dict[str, Any] = {
    "add": np.add,
    "mul": np.multiply,
    "max": np.maximum,
    "min": np.minimum,
}


def scattered(operands: list[Any], reduction: str, cpu: str) -> Any:
    """What the compiled operator makes of data, indices and updates."""
    builder = relax.BlockBuilder()
    inputs = [
        relax.Var(f"x{i}", relax.TensorType(x.shape, str(x.dtype))) for i, x in enumerate(operands)
    ]
    with builder.function("main", inputs):
        with builder.dataflow():
            y = builder.emit_output(relax.op.scatter_nd(*inputs, reduction))
        builder.emit_func_output(y)
    context = Context(target.parse(cpu, threads=2), pipeline.rules())
    module = pipeline.run(pipeline.parse("legalize,fuse,schedule"), builder.finalize(), context)
    return evaluate(module, operands)[0]


def by_numpy(operands: list[Any], reduction: str) -> Any:
    data, indices, updates = operands
    wanted = data.copy()
    places = tuple(np.moveaxis(indices, -1, 0))
    if reduction == "update":
        wanted[places] = updates
    else:
        COMBINED[reduction].at(wanted, places, updates)
    return wanted


@pytest.mark.parametrize("cpu", CPUS)
@drawn(
    10,
    40,
    rows=st.lists(st.sampled_from([1, 2, 5, 9]), min_size=1, max_size=2),
    columns=st.lists(st.sampled_from([1, 3, 8, 16, 40]), min_size=0, max_size=2),
    many=st.lists(st.integers(1, 5), min_size=1, max_size=2),
    reduction=st.sampled_from(["update", *COMBINED]),
    dtype=st.sampled_from(["float32", "float32", "int32", "int64"]),
)
def test_of_any_shape(
    cpu: str, rows: list[int], columns: list[int], many: list[int], reduction: str, dtype: str
) -> None:
    draw = np.random.default_rng(0)
    indices = np.stack([draw.integers(0, n, many) for n in rows], -1)
    if reduction == "update":  # which of two that fall together wins is nowhere said
        count = min(int(np.prod(rows)), int(np.prod(many)))
        flat = draw.permutation(int(np.prod(rows)))[:count]
        indices = np.stack(np.unravel_index(flat, rows), -1)
    updates = 3 * draw.standard_normal((*indices.shape[:-1], *columns))
    data = 3 * draw.standard_normal((*rows, *columns))
    operands = [data.astype(dtype), indices.astype("int64"), updates.astype(dtype)]
    got = scattered(operands, reduction, cpu)
    np.testing.assert_allclose(got, by_numpy(operands, reduction), rtol=1e-4, atol=1e-5)


def test_rows_that_fall_together_on_every_thread() -> None:
    draw = np.random.default_rng(0)
    data = np.zeros((50, 64), "float32")
    indices = draw.integers(0, 3, (2000, 1))
    updates = draw.standard_normal((2000, 64)).astype("float32")
    operands = [data, indices, updates]
    got = scattered(operands, "add", "cpu")
    np.testing.assert_allclose(got, by_numpy(operands, "add"), rtol=1e-3, atol=1e-3)
