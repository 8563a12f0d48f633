"""Attention, from the operators that exporters write to one kernel, against numpy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from test_contractions import CPUS, FEW, noise
from tvm.script import from_source

from hybridc.compiler import evaluate, pipeline, target
from hybridc.compiler.interfaces import Context

Array = NDArray[np.float32]

TEXT = """
@I.ir_module
class Module:
    @R.function
    def main(q: R.Tensor({q}, "float32"), k: R.Tensor({k}, "float32"), v: R.Tensor({v}, "float32")
             {mask}):
        with R.dataflow():
            a = R.permute_dims(q, axes=[0, 2, 1, 3])
            b = R.permute_dims(k, axes=[0, 2, 3, 1])
            c = R.permute_dims(v, axes=[0, 2, 1, 3])
            d = R.matmul(a, b)
            e = R.multiply(d, R.const({scale}, "float32"))
            {add}
            g = R.nn.softmax(f, axis=-1)
            {safe}
            i = R.matmul(h, c)
            y = R.permute_dims(i, axes=[0, 2, 1, 3])
            R.output(y)
        return y
"""
SAFE = 'n = R.isnan(g); h = R.where(n, R.const(0.0, "float32"), g)'


def compute(arrays: list[Array], cpu: str, scale: float, safe: bool) -> Array:
    """Compile the text for these arrays (q, k, v and perhaps a mask) and run it."""
    shapes = [array.shape for array in arrays]
    text = TEXT.format(
        q=shapes[0],
        k=shapes[1],
        v=shapes[2],
        mask=f', m: R.Tensor({shapes[3]}, "float32")' if len(arrays) == 4 else "",
        add="f = R.add(e, m)" if len(arrays) == 4 else "f = e",
        safe=SAFE if safe else "h = g",
        scale=scale,
    )
    context = Context(target.parse(cpu), pipeline.rules())
    module = pipeline.run(pipeline.parse("default"), from_source(text), context)
    assert "attention" in {record.rule for record in context.kernels}
    return evaluate.evaluate(module, arrays)[0].astype("float32")


def reference(arrays: list[Array], scale: float) -> Array:
    q, k, v = (array.astype("float64") for array in arrays[:3])
    scores = np.einsum("bshd,bthd->bhst", q, k) * scale
    if len(arrays) == 4:
        scores = scores + arrays[3]
    with np.errstate(invalid="ignore"):
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
    return np.einsum("bhst,bthd->bshd", np.nan_to_num(weights), v).astype("float32")


@pytest.mark.parametrize("cpu", CPUS)
@FEW
@given(
    batch=st.integers(1, 2),
    heads=st.integers(1, 3),
    rows=st.integers(1, 21),
    columns=st.integers(1, 37),
    depth=st.integers(1, 19),
    features=st.integers(1, 35),
    mask=st.sampled_from(["none", "columns", "all", "heads"]),
    safe=st.booleans(),
)
def test_attention(
    cpu: str,
    batch: int,
    heads: int,
    rows: int,
    columns: int,
    depth: int,
    features: int,
    mask: str,
    safe: bool,
) -> None:
    arrays = [
        noise(batch, rows, heads, depth),
        noise(batch, columns, heads, depth),
        noise(batch, columns, heads, features),
    ]
    masks = {
        "columns": (batch, 1, 1, columns),
        "all": (rows, columns),
        "heads": (1, heads, rows, columns),
    }
    if mask in masks:
        arrays.append(noise(*masks[mask]))
    got = compute(arrays, cpu, 0.25, safe)
    np.testing.assert_allclose(got, reference(arrays, 0.25), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("cpu", CPUS)
def test_a_row_that_is_masked_wholly_gives_zeros(cpu: str) -> None:
    arrays = [noise(1, 5, 2, 8), noise(1, 20, 2, 8), noise(1, 20, 2, 8)]
    mask = np.zeros((1, 1, 5, 20), "float32")
    mask[:, :, 3] = -np.inf
    got = compute([*arrays, mask], cpu, 1.0, True)
    assert not got[0, 3].any()
    np.testing.assert_allclose(got, reference([*arrays, mask], 1.0), rtol=1e-4, atol=1e-5)


def test_large_scores_do_not_overflow() -> None:
    arrays = [noise(1, 9, 1, 16) * 100, noise(1, 33, 1, 16) * 100, noise(1, 33, 1, 16)]
    got = compute(arrays, "cpu", 1.0, False)
    np.testing.assert_allclose(got, reference(arrays, 1.0), rtol=1e-3, atol=1e-4)
