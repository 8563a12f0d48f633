"""Our lowerings of normalisations, against numpy in float64, at means where one pass cancels."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from tvm import relax, tirx

from hybridc.compiler import pipeline, target
from hybridc.compiler.interfaces import Context
from hybridc.compiler.ir.evaluate import evaluate
from hybridc.compiler.model import Array


def run(
    build: Any,
    *inputs: Array,
    steps: str = "legalize,fuse,schedule,fast-math",
    sizes: Sequence[Any] | None = None,
) -> tuple[Array, set[str]]:
    """Lower, schedule and run an operator; also the rules that took its kernels.

    `sizes` are those of the first input where some are open.
    """
    builder = relax.BlockBuilder()
    shapes = [x.shape for x in inputs] if sizes is None else [sizes, *(x.shape for x in inputs[1:])]
    variables = [
        relax.Var(f"x{i}", relax.TensorType(shape, str(x.dtype)))
        for i, (x, shape) in enumerate(zip(inputs, shapes, strict=True))
    ]
    with builder.function("main", variables):
        with builder.dataflow():
            y = builder.emit_output(build(*variables))
        builder.emit_func_output(y)
    context = Context(target.parse("cpu"), pipeline.rules())
    made = pipeline.run(pipeline.parse(steps), builder.finalize(), context)
    (result,) = evaluate(made, list(inputs))
    return result, {record.rule for record in context.kernels}


def normalised(x: Array, groups: int, channel: int, scale: Array, shift: Array) -> Array:
    """Group normalisation over everything but the batch, in float64."""
    first = np.moveaxis(x.astype(np.float64), channel, 1)
    rows = first.reshape(x.shape[0], groups, -1)
    mean, variance = rows.mean(-1, keepdims=True), rows.var(-1, keepdims=True)
    unit = ((rows - mean) / np.sqrt(variance + 1e-5)).reshape(first.shape)
    wide = (1, -1, *[1] * (x.ndim - 2))
    return np.moveaxis(unit * scale.reshape(wide) + shift.reshape(wide), 1, channel)


@pytest.mark.parametrize("mean", [0, 1000])
@pytest.mark.parametrize(
    ("shape", "groups", "channel"),
    [((2, 8, 5, 7), 2, 1), ((1, 6, 16, 16), 3, 1), ((2, 5, 7, 8), 4, 3), ((3, 6, 10), 1, 1)],
)
def test_group_norm(shape: tuple[int, ...], groups: int, channel: int, mean: float) -> None:
    noise = np.random.default_rng(0)
    x = (mean + noise.standard_normal(shape)).astype(np.float32)
    scale, shift = noise.standard_normal((2, shape[channel])).astype(np.float32)
    axes = [axis for axis in range(1, len(shape)) if axis != channel]
    got, rules = run(lambda *v: relax.op.nn.group_norm(*v, groups, channel, axes), x, scale, shift)
    wanted = normalised(x, groups, channel, scale, shift)
    np.testing.assert_allclose(got, wanted, atol=1e-5 if mean == 0 else 1e-3)
    assert ("reduction" if channel == x.ndim - 1 else "layer-norm") in rules


@pytest.mark.parametrize("mean", [0, 1000])
@pytest.mark.parametrize(
    ("shape", "groups", "channel"),
    [((2, 6, 37), 6, 1), ((3, 6, 1), 3, 1), ((2, 6, 7, 17), 2, 1), ((2, 5, 67, 6), 2, 3)],
)
def test_norms_over_open_sizes(
    shape: tuple[int, ...], groups: int, channel: int, mean: float
) -> None:
    rng = np.random.default_rng(0)
    x = (rng.standard_normal(shape) + mean).astype(np.float32)
    scale, shift = rng.standard_normal((2, shape[channel])).astype(np.float32)
    axes = [axis for axis in range(1, len(shape)) if axis != channel]
    sizes = [n if i == channel else tirx.Var(f"n{i}", "int64") for i, n in enumerate(shape)]

    def norm(*v: Any) -> Any:
        if groups == shape[channel]:
            return relax.op.nn.instance_norm(*v, channel, axes)
        return relax.op.nn.group_norm(*v, groups, channel, axes)

    got, rules = run(norm, x, scale, shift, sizes=sizes)
    wanted = normalised(x, groups, channel, scale, shift)
    np.testing.assert_allclose(got, wanted, 1e-4, 1e-4 if mean == 0 else 1e-3)
    assert "open-loops" in rules


@pytest.mark.parametrize("mean", [0, 1000])
def test_instance_norm(mean: float) -> None:
    noise = np.random.default_rng(0)
    x = (mean + noise.standard_normal((2, 5, 9, 9))).astype(np.float32)
    scale, shift = noise.standard_normal((2, 5)).astype(np.float32)
    got, _ = run(lambda *v: relax.op.nn.instance_norm(*v, 1, [2, 3]), x, scale, shift)
    wanted = normalised(x, 5, 1, scale, shift)
    np.testing.assert_allclose(got, wanted, atol=1e-5 if mean == 0 else 1e-3)


def test_symbolic_shapes_are_left_to_tvm() -> None:
    from tvm import tirx

    builder = relax.BlockBuilder()
    batch = tirx.Var("batch", "int64")
    x = relax.Var("x", relax.TensorType((batch, 4, 3, 3), "float32"))
    scale = relax.Var("scale", relax.TensorType((4,), "float32"))
    with builder.function("main", [x, scale]):
        with builder.dataflow():
            y = builder.emit_output(relax.op.nn.group_norm(x, scale, scale, 2, 1, [2, 3]))
        builder.emit_func_output(y)
    lowered = pipeline.run(
        pipeline.parse("legalize"), builder.finalize(), Context(target.parse("cpu"))
    )
    assert "R.nn.group_norm" not in lowered.script()


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("name", ["isnan", "isinf", "isfinite"])
def test_classes_of_numbers(name: str, dtype: str) -> None:
    largest, smallest = np.finfo(dtype).max, np.finfo(dtype).smallest_subnormal
    edges = [0.0, -0.0, 1.0, np.inf, -np.inf, np.nan, -np.nan, largest, -largest, smallest]
    x = np.array(edges * 5, dtype)
    got, _ = run(lambda v: relax.op.astype(getattr(relax.op, name)(v), "int32"), x)
    np.testing.assert_array_equal(got, getattr(np, name)(x).astype(np.int32))


@pytest.mark.parametrize(
    ("dtype", "most"), [("float16", 11.7), ("float32", 89.4), ("float64", 710)]
)
@pytest.mark.parametrize("name", ["sinh", "cosh"])
def test_hyperbolic_functions(name: str, dtype: str, most: float) -> None:
    """Near zero, where exponentials cancel, and up to where the result overflows."""
    x = np.concatenate([np.linspace(-most, most, 99), np.geomspace(1e-4, 2, 50)]).astype(dtype)
    got, _ = run(getattr(relax.op, name), x)
    wanted = getattr(np, name)(x.astype(np.float64)).astype(dtype)
    close = 8 * float(np.finfo(np.float16).eps) if dtype == "float16" else 1e-6
    np.testing.assert_allclose(got, wanted, rtol=close)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_the_inverse_hyperbolic_tangent(dtype: str) -> None:
    """Near zero, where x is lost beside 1, and up to the poles."""
    small = np.geomspace(np.finfo(dtype).tiny, 0.9, 200)
    x = np.concatenate([np.linspace(-0.99, 0.99, 199), small, -small, [1, -1, 0, 2, np.nan]])
    x = x.astype(dtype)
    got, _ = run(relax.op.atanh, x, steps="widen-types,legalize,fuse,schedule,fast-math")
    with np.errstate(invalid="ignore", divide="ignore"):
        wanted = np.arctanh(x.astype(np.float64)).astype(dtype)
    np.testing.assert_allclose(got, wanted, rtol=8 * float(np.finfo(dtype).eps))


@pytest.mark.parametrize("dtype", ["float32", "float16", "int64", "uint8", "bool"])
@pytest.mark.parametrize(
    ("shape", "repeats"),
    [
        ((4, 37), (3, 5)),
        ((3, 50), (2, 1, 2)),
        ((5, 1, 19), (2,)),
        ((7, 3), (2, 9)),
        ((2, 3, 17), (1, 4, 1)),
        ((), (3, 2)),
        ((6, 20), (1, 0)),
        ((0, 20), (1, 2)),
    ],
)
def test_tiles_are_those_of_numpy(
    shape: tuple[int, ...], repeats: tuple[int, ...], dtype: str
) -> None:
    x = np.random.default_rng(0).integers(0, 100, shape).astype(dtype)
    got, _ = run(lambda v: relax.op.tile(v, repeats), np.asarray(x))
    wanted = np.tile(x, repeats)
    assert got.dtype == wanted.dtype
    np.testing.assert_array_equal(got, wanted)
