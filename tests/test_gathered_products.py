"""Products with matrices that indices choose, against numpy."""

from typing import Any

import numpy as np
import pytest
from cpus import CPUS
from drawn import drawn as over
from hypothesis import strategies as st
from tvm import relax

from hybridc.compiler import pipeline, target
from hybridc.compiler.interfaces import Context
from hybridc.compiler.ir.evaluate import evaluate

COUNT = 5


def product(
    operands: list[Any], cpu: str, *, gathers_left: bool, tuples: bool = False, kept: bool = False
) -> tuple[Any, list[str]]:
    """The compiled product of gathered matrices and others; the names of its kernels.

    `tuples` gathers as GatherND does; with `kept` the gathered matrices are an output too.
    """
    builder = relax.BlockBuilder()
    given_ = [
        relax.Var(name, relax.TensorType(x.shape, str(x.dtype)))
        for name, x in zip(("matrices", "places", "other"), operands, strict=True)
    ]
    matrices, places, other = given_
    with builder.function("main", given_):
        with builder.dataflow():
            if tuples:
                places = builder.emit(relax.op.expand_dims(places, -1))
                chosen = builder.emit(relax.op.gather_nd(matrices, places))
            else:
                chosen = builder.emit(relax.op.take(matrices, places, axis=0, mode="clip"))
            sides = (chosen, other) if gathers_left else (other, chosen)
            y = builder.emit_output(relax.op.matmul(*sides))
            out = relax.Tuple([y, builder.emit_output(chosen)]) if kept else y
        builder.emit_func_output(out)
    context = Context(target.parse(cpu, threads=2), pipeline.rules())
    module = pipeline.run(pipeline.parse("legalize,fuse,schedule"), builder.finalize(), context)
    return evaluate(module, operands)[0], [var.name_hint for var in module.get_global_vars()]


def drawn(shape: tuple[int, ...], places: tuple[int, ...], kind: str, count: int = COUNT) -> Any:
    """Matrices, and which of them are meant."""
    draw = np.random.default_rng(0)
    chosen = draw.integers(0, count, places).astype(kind)
    return draw.standard_normal((count, *shape)).astype("float32"), chosen


def near(got: Any, wanted: Any) -> bool:
    """Whether two products are the same but for the order of their sums."""
    return bool(got.shape == wanted.shape and np.allclose(got, wanted, rtol=1e-4, atol=1e-4))


@pytest.mark.parametrize("cpu", CPUS)
@over(
    8,
    40,
    rows=st.sampled_from([1, 3, 7, 32, 130]),
    depth=st.sampled_from([1, 5, 16, 48]),
    places=st.sampled_from([(1,), (6,), (3, 2)]),
    kind=st.sampled_from(["int32", "int64"]),
    tuples=st.booleans(),
)
def test_times_vectors(
    cpu: str, rows: int, depth: int, places: tuple[int, ...], kind: str, tuples: bool
) -> None:
    matrices, chosen = drawn((rows, depth), places, kind)
    vectors = np.random.default_rng(1).standard_normal((*places, depth, 1)).astype("float32")
    tuples = tuples and kind == "int64"  # TVM takes no others
    operands = [matrices, chosen, vectors]
    got, _ = product(operands, cpu, gathers_left=True, tuples=tuples)
    assert near(got, matrices[chosen] @ vectors)


@pytest.mark.parametrize("cpu", CPUS)
@over(
    8,
    40,
    rows=st.sampled_from([1, 2, 4, 5]),
    columns=st.sampled_from([2, 7, 32, 130]),
    depth=st.sampled_from([2, 5, 48]),
    places=st.sampled_from([(1,), (6,), (3, 2)]),
)
def test_rows_times(cpu: str, rows: int, columns: int, depth: int, places: tuple[int, ...]) -> None:
    matrices, chosen = drawn((depth, columns), places, "int64")
    left = np.random.default_rng(1).standard_normal((*places, rows, depth)).astype("float32")
    got, _ = product([matrices, chosen, left], cpu, gathers_left=False)
    assert near(got, left @ matrices[chosen])


def test_others_have_fewer_axes_or_are_broadcast() -> None:
    matrices, chosen = drawn((32, 48), (3, 2), "int64")
    draw = np.random.default_rng(1)
    for shape in ((48, 1), (3, 1, 48, 1), (7, 1, 2, 48, 1)):
        vectors = draw.standard_normal(shape).astype("float32")
        got, _ = product([matrices, chosen, vectors], CPUS[0], gathers_left=True)
        assert near(got, matrices[chosen] @ vectors)


def test_matrices_are_not_copied() -> None:
    matrices, chosen = drawn((32, 48), (6,), "int64")
    vectors = np.ones((6, 48, 1), "float32")
    for tuples in (False, True):
        _, names = product([matrices, chosen, vectors], CPUS[0], gathers_left=True, tuples=tuples)
        assert any("gathered_product" in name for name in names)
        assert not any("take" in name or "gather_nd" in name for name in names)


def test_a_copy_that_is_wanted_is_multiplied() -> None:
    matrices, chosen = drawn((32, 48), (6,), "int64")
    vectors = np.ones((6, 48, 1), "float32")
    got, names = product([matrices, chosen, vectors], CPUS[0], gathers_left=True, kept=True)
    assert near(got, matrices[chosen] @ vectors)
    assert not any("gathered_product" in name for name in names)


def test_no_place_is_beyond_the_matrices() -> None:
    matrices, _ = drawn((32, 48), (6,), "int64")
    vectors = np.ones((6, 48, 1), "float32")
    far = np.array([0, COUNT, -1, 2**40, -(2**40), COUNT - 1])
    got, _ = product([matrices, far, vectors], CPUS[0], gathers_left=True)
    assert near(got, matrices[np.clip(far, 0, COUNT - 1)] @ vectors)
