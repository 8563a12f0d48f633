"""Attention, from the operators that exporters write to one kernel, against numpy."""

from typing import Any

import numpy as np
import pytest
from cpus import CPUS
from drawn import drawn
from hypothesis import strategies as st
from numpy.typing import NDArray
from test_contractions import noise
from tvm.script import from_source

from hybridc.compiler import pipeline, target
from hybridc.compiler.interfaces import Context
from hybridc.compiler.ir import evaluate
from hybridc.compiler.kernels.attention.attention import attention
from hybridc.compiler.kernels.attention.attention_form import Attention as Form
from hybridc.compiler.kernels.attention.attention_form import Operand
from hybridc.schedules.attention import Attention, AttentionMatch

Array = NDArray[np.float32]

TEXT = """
@I.ir_module
class Module:
    @R.function
    def main(q: R.Tensor({q}, "float32"), k: R.Tensor({k}, "float32"), v: R.Tensor({v}, "float32")
             {mask}):
        with R.dataflow():
            a = R.permute_dims(q, axes=[0, 2, 1, 3])
            k1 = R.permute_dims(k, axes=[0, 2, 1, 3])
            {repeat_k}
            b = R.permute_dims(k2, axes=[0, 1, 3, 2])
            v1 = R.permute_dims(v, axes=[0, 2, 1, 3])
            {repeat_v}
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
REPEAT = """{x}3 = R.expand_dims({x}1, axis=[2])
            {x}4 = R.broadcast_to({x}3, R.shape([{batch}, {heads}, {group}, {columns}, {depth}]))
            {y} = R.reshape({x}4, R.shape([{batch}, {heads} * {group}, {columns}, {depth}]))"""
ADD = "f = R.add(e, m)"
FILL = 'f = R.where(m, e, R.const(-3e38, "float32"))'
SAFE = 'n = R.isnan(g); h = R.where(n, R.const(0.0, "float32"), g)'


def compute(arrays: list[Array], cpu: str, scale: float, safe: bool) -> Array:
    """Compile the text for these arrays (q, k, v and perhaps a mask) and run it."""
    shapes = [array.shape for array in arrays]
    mask = arrays[3] if len(arrays) == 4 else None
    filled = mask is not None and mask.dtype == np.bool_
    text = TEXT.format(
        q=shapes[0],
        k=shapes[1],
        v=shapes[2],
        repeat_k=repeated("k", "k2", shapes[0], shapes[1]),
        repeat_v=repeated("v", "c", shapes[0], shapes[2]),
        mask="" if mask is None else f', m: R.Tensor({mask.shape}, "{mask.dtype}")',
        add="f = e" if mask is None else FILL if filled else ADD,
        safe=SAFE if safe else "h = g",
        scale=scale,
    )
    context = Context(target.parse(cpu), pipeline.rules())
    module = pipeline.run(pipeline.parse("default"), from_source(text), context)
    assert "attention" in {record.rule for record in context.kernels}
    return evaluate.evaluate(module, arrays)[0].astype("float32")


def repeated(x: str, y: str, query: tuple[int, ...], keys: tuple[int, ...]) -> str:
    """`y` with as many heads as the queries, from `x1` with those of the keys."""
    batch, columns, heads, depth = keys
    group = query[2] // heads
    if group == 1:
        return f"{y} = {x}1"
    sizes = {"batch": batch, "heads": heads, "group": group, "columns": columns, "depth": depth}
    return REPEAT.format(x=x, y=y, **sizes)


def reference(arrays: list[Array], scale: float) -> Array:
    q, k, v = (array.astype("float64") for array in arrays[:3])
    k, v = (np.repeat(array, q.shape[2] // k.shape[2], axis=2) for array in (k, v))
    scores = np.einsum("bshd,bthd->bhst", q, k) * scale
    if len(arrays) == 4 and arrays[3].dtype == np.bool_:
        scores = np.where(arrays[3], scores, np.float32(-3e38))
    elif len(arrays) == 4:
        scores = scores + arrays[3]
    with np.errstate(invalid="ignore"):
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
    return np.einsum("bhst,bthd->bshd", np.nan_to_num(weights), v).astype("float32")


@pytest.mark.parametrize("cpu", CPUS)
@drawn(
    12,
    60,
    batch=st.integers(1, 2),
    heads=st.integers(1, 3),
    group=st.integers(1, 3),
    rows=st.sampled_from([1, 2, 4, 5, 8, 13, 21]),
    columns=st.integers(1, 37) | st.sampled_from([49, 57, 65, 101]),
    depth=st.sampled_from([1, 4, 7, 8, 16, 19, 24, 32, 64, 80, 128]),
    features=st.integers(1, 35),
    mask=st.sampled_from(["none", "columns", "rows", "all", "heads"]),
    boolean=st.booleans(),
    safe=st.booleans(),
)
def test_attention(
    cpu: str,
    batch: int,
    heads: int,
    group: int,
    rows: int,
    columns: int,
    depth: int,
    features: int,
    mask: str,
    boolean: bool,
    safe: bool,
) -> None:
    arrays: list[Any] = [
        noise(batch, rows, heads * group, depth),
        noise(batch, columns, heads, depth),
        noise(batch, columns, heads, features),
    ]
    masks = {
        "columns": (batch, 1, 1, columns),
        "all": (rows, columns),
        "rows": (rows, 1),
        "heads": (1, heads * group, rows, columns),
    }
    if mask in masks:
        added = noise(*masks[mask])
        arrays.append(added > 0 if boolean else added)
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


@pytest.mark.parametrize(
    ("features", "width", "packed"),
    [(24, 8, False), (40, 8, False), (64, 16, False), (36, 16, True)],
)
def test_vectors_of_values_are_of_a_width_that_cpus_have(
    features: int, width: int, packed: bool
) -> None:
    """Vectors that end behind the features want zeros there, or are half as wide."""
    lies = Operand((1, 20, 2, features), (0, 2, 1, 3))
    keys = Operand((1, 20, 2, features), (0, 2, 3, 1))
    func = attention(Form(lies, keys, lies, 1.0, None, safe=False), 16)
    match = Attention().match(func, target.parse("avx512"))
    assert isinstance(match, AttentionMatch)
    assert (match.width, match.packs_values) == (width, packed)
