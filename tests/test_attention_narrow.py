"""Attention in bfloat16, and attention whose constant mask is causal, against numpy."""

from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from cpus import CPUS
from kernel_builders import operator
from test_attention import reference
from test_contractions import noise
from tvm import relax

from hybridc.compiler import pipeline, target
from hybridc.compiler.interfaces import Context
from hybridc.compiler.ir import evaluate
from hybridc.compiler.kernels.attention.attention_form import (
    Attention,
    Fill,
    Operand,
    form_of,
    with_form,
)
from hybridc.compiler.pipelines import DEFAULT

op: Any = relax.op

# Batch, rows, columns, heads, query heads for each of them, depth, features.
SHAPES = [
    (1, 37, 37, 1, 1, 8, 19),
    (2, 50, 75, 2, 1, 32, 32),
    (1, 50, 40, 2, 2, 16, 16),
    (1, 17, 50, 3, 1, 72, 72),
    (1, 9, 15, 1, 2, 19, 40),
    (1, 5, 1, 1, 1, 1, 1),
    (1, 3, 12, 2, 1, 16, 16),
]


def module(shapes: Sequence[tuple[int, ...]], mask: Any, fill: float | None) -> Any:
    """Attention of q, k and v, with a constant mask if there is one."""
    builder = relax.BlockBuilder()
    names = zip("qkv", shapes, strict=True)
    q, k, v = (relax.Var(name, relax.TensorType(shape, "float32")) for name, shape in names)
    group = shapes[0][2] // shapes[1][2]
    emit = builder.normalize
    with builder.function("main", [q, k, v]):
        with builder.dataflow():
            query = emit(op.permute_dims(q, [0, 2, 1, 3]))
            key, value = (repeated_heads(emit, x, group) for x in (k, v))
            scores = op.matmul(query, emit(op.permute_dims(key, [0, 1, 3, 2])))
            scores = emit(op.multiply(emit(scores), relax.const(0.25, "float32")))
            if mask is not None and fill is not None:
                scores = op.where(relax.const(mask), scores, relax.const(np.float32(fill)))
            elif mask is not None:
                scores = op.add(scores, relax.const(np.where(mask, 0, -np.inf).astype("float32")))
            weights = emit(op.nn.softmax(emit(scores), axis=-1))
            result = emit(op.permute_dims(emit(op.matmul(weights, value)), [0, 2, 1, 3]))
            output = builder.emit_output(result)
        builder.emit_func_output(output)
    return builder.finalize()


def repeated_heads(emit: Any, x: Any, group: int) -> Any:
    """Heads first, each `group` times."""
    x = emit(op.permute_dims(x, [0, 2, 1, 3]))
    if group == 1:
        return x
    batch, heads, rows, depth = (int(extent) for extent in x.ty.shape.values)
    copies = emit(op.broadcast_to(emit(op.expand_dims(x, [2])), [batch, heads, group, rows, depth]))
    return emit(op.reshape(copies, [batch, heads * group, rows, depth]))


def compiled(built: Any, cpu: str, narrow: bool) -> tuple[Any, list[int]]:
    """The module behind the default pipeline, and the operations of its attention."""
    names = [name for name, _ in DEFAULT]
    if narrow:
        names.insert(names.index("pack-weights"), "mixed-precision")
    context = Context(target.parse(cpu), pipeline.rules())
    done = pipeline.run(pipeline.parse(",".join(names)), built, context)
    assert "attention" in {record.rule for record in context.kernels}
    return done, [record.flops for record in context.kernels if record.rule == "attention"]


def rounded(array: Any, narrow: bool) -> Any:
    return array.astype(ml_dtypes.bfloat16).astype("float32") if narrow else array


@pytest.mark.parametrize("cpu", CPUS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["bf16", "causal", "causal bf16"])
def test_shapes(cpu: str, shape: tuple[int, ...], kind: str) -> None:
    batch, rows, columns, heads, group, depth, features = shape
    narrow = "bf16" in kind
    arrays = [
        noise(batch, rows, heads * group, depth),
        noise(batch, columns, heads, depth),
        noise(batch, columns, heads, features),
    ]
    first = max(0, columns - rows) if columns % 2 else 0
    mask = np.tri(rows, columns, first, dtype=bool) if "causal" in kind else None
    fill = -3e38 if features % 2 else None
    done, _ = compiled(module([x.shape for x in arrays], mask, fill), cpu, narrow)
    got = evaluate.evaluate(done, arrays)[0].astype("float32")
    known = [rounded(array, narrow) for array in arrays]
    expected = reference([*known, *([] if mask is None else [mask])], 0.25)
    tolerance = 6e-3 if narrow else 1e-5  # weights are rounded to 8 bits
    np.testing.assert_allclose(
        got, expected, rtol=tolerance, atol=tolerance * np.abs(expected).max()
    )


def test_columns_above_the_diagonal_cost_nothing() -> None:
    shapes = [(1, 64, 1, 16)] * 3
    _, (all_met,) = compiled(module(shapes, None, None), "cpu", False)
    _, (half,) = compiled(module(shapes, np.tri(64, dtype=bool), -3e38), "cpu", False)
    assert half * 128 == all_met * 65
    banded = np.tri(64, dtype=bool) & ~np.tri(64, k=-9, dtype=bool)
    _, (dense,) = compiled(module(shapes, banded, -3e38), "cpu", False)
    assert dense == all_met


@pytest.mark.parametrize(("low", "causal"), [(-10.0, None), (-65504.0, 0), (-np.inf, 0)])
def test_a_mask_is_causal_where_exp_makes_zeros_of_it(low: float, causal: int | None) -> None:
    bias = np.where(np.tri(20, dtype=bool), 0, low).astype("float32")
    arrays = [noise(1, 20, 1, 8) for _ in range(3)]

    def biased(q: Any, k: Any, v: Any) -> Any:
        query, value = (op.permute_dims(x, [0, 2, 1, 3]) for x in (q, v))
        scores = op.matmul(query, op.permute_dims(k, [0, 2, 3, 1]))
        return op.matmul(op.nn.softmax(op.add(scores, relax.const(bias)), axis=-1), value)

    operands = [(array.shape, "float32") for array in arrays]
    kernels = operator(biased, *operands, passes="fuse-attention")(target.parse("cpu"))
    (form,) = [form for form in map(form_of, kernels) if form]
    assert form.causal == causal
    assert form.mask == ((20, 20) if causal is None else None)


def test_the_text_of_a_form_gives_it_again() -> None:
    operand = Operand((1, 4, 6, 8), (0, 2, 1, 3), first=2, heads=2)
    form = Attention(operand, operand, operand, 0.5, (1, 4), True, Fill(-np.inf, False), 3)
    (func,) = operator(op.exp, ([4], "float32"))(target.parse("cpu"))
    assert form_of(func) is None
    assert form_of(with_form(func, form)) == form
