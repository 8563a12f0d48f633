"""Kernels with open sizes: which axes are free, strips of them, and what rules make of these."""

from functools import cache
from typing import Any

import numpy as np
import open_models
import pytest
import tvm
from tvm import te, tirx
from tvm_ffi import structural_walk

from hybridc.compiler import frontend, pipeline, strips, target
from hybridc.compiler.building.build import compile_kernel
from hybridc.compiler.configuration import plans
from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.interfaces import Context
from hybridc.compiler.kernels.products import contractions, packing
from hybridc.compiler.log import keys
from hybridc.compiler.strips import choose
from hybridc.compiler.strips.axes import free_axes
from hybridc.passes.schedule import Schedule

N = tirx.Var("n", "int64")
M = tirx.Var("m", "int64")


def kernel(*tensors: Any) -> Any:
    return te.create_prim_func(list(tensors)).without_attr("global_symbol")


def scaled() -> Any:
    x = te.placeholder((N, 3, M), "float32", "x")
    return kernel(x, te.compute(x.shape, lambda i, j, k: x[i, j, k] * 2.0, name="y"))


def softmax() -> Any:
    x = te.placeholder((N, M), "float32", "x")
    k = te.reduce_axis((0, M), "k")
    total = te.compute((N,), lambda i: te.sum(te.exp(x[i, k]), axis=k), name="total")
    return kernel(x, te.compute((N, M), lambda i, j: te.exp(x[i, j]) / total[i], name="y"))


def reversed_rows() -> Any:
    x = te.placeholder((N, 8), "float32", "x")
    return kernel(x, te.compute((N, 8), lambda i, j: x[N - 1 - i, j], name="y"))


def diagonal() -> Any:
    x = te.placeholder((N, N), "float32", "x")
    return kernel(x, te.compute((N,), lambda i: x[i, i], name="y"))


def triangle() -> Any:
    """What it computes depends on where an element is."""
    x = te.placeholder((N, 16), "float32", "x")
    zero = tirx.const(0.0, "float32")
    return kernel(x, te.compute((N, 16), lambda i, j: tirx.Select(j <= i, x[i, j], zero), name="y"))


def shifted() -> Any:
    """Both of its axes have the size that places are computed of."""
    x = te.placeholder((N, M), "float32", "x")
    return kernel(x, te.compute((N, N), lambda i, j: x[i, (j + N - 1) % M], name="y"))


def multiples() -> Any:
    """Its rows are 16 at least, which leaves nothing to strips of one."""
    x = te.placeholder((M, 16, N * 16), "float32", "x")
    y = te.compute((M, N * 16, 16), lambda i, j, k: x[i, k, j] + 1.0, name="y")
    return kernel(x, y, N)


@pytest.mark.parametrize(
    ("make", "free"),
    [
        (scaled, ["n", "m"]),
        (softmax, ["n"]),
        (reversed_rows, ["n"]),
        (diagonal, []),
        (triangle, ["n"]),
        (shifted, ["n"]),
    ],
)
def test_free_axes_are_those_that_nothing_ties(make: Any, free: list[str]) -> None:
    func = make()
    assert [str(axis.extent) for axis in free_axes(func)] == free
    assert strips.has_open_sizes(func)


def test_kernels_of_fixed_sizes_are_left_whole() -> None:
    x = te.placeholder((4, 8), "float32", "x")
    func = kernel(x, te.compute((4, 8), lambda i, j: x[i, j] + 1.0, name="y"))
    assert not strips.has_open_sizes(func)
    assert strips.cuts(func) == []


def test_strips_end_with_single_places() -> None:
    for make in (scaled, softmax, triangle):
        sizes = [strip.sizes for strip in strips.cuts(make())]
        assert set(sizes[-1]) == {1}
        assert sizes == sorted(sizes, reverse=True)


def scheduled(func: Any, threads: int = 2) -> Any:
    device = target.parse("cpu", threads)
    context = Context(device, pipeline.rules())
    module = Schedule().apply(tvm.IRModule({"main": func}), context)
    return module["main"], context


@pytest.mark.parametrize("make", [scaled, softmax, reversed_rows, diagonal, triangle, shifted])
def test_kernels_compute_the_same_at_any_size(make: Any) -> None:
    func = make()
    device = target.parse("cpu", 2)
    plain = compile_kernel(func.with_attr("tirx.is_scheduled", True), device).jit()["main"]
    ours = compile_kernel(scheduled(func)[0], device).jit()["main"]
    rng = np.random.default_rng(0)
    for n, m in ((1, 1), (2, 3), (7, 8), (16, 17), (65, 33), (130, 5), (3, 1030)):
        sizes = {"n": n, "m": m}
        shapes = [
            [sizes.get(str(e), e) if not isinstance(e, tirx.IntImm) else int(e) for e in p.shape]
            for p in func.params
        ]
        x = rng.standard_normal(shapes[0]).astype(np.float32)  # pyright: ignore[reportArgumentType, reportCallIssue]
        made = [tvm.runtime.tensor(np.zeros(shapes[1], np.float32)) for _ in range(2)]  # pyright: ignore[reportArgumentType, reportCallIssue]
        plain(tvm.runtime.tensor(x), made[0])
        ours(tvm.runtime.tensor(x), made[1])
        np.testing.assert_allclose(made[1].numpy(), made[0].numpy(), 1e-5, 1e-6)


def test_sizes_that_are_multiples_need_no_shorter_strips() -> None:
    run = compile_kernel(scheduled(multiples())[0], target.parse("cpu", 2)).jit()["main"]
    rng = np.random.default_rng(0)
    for m, n in ((1, 1), (3, 2), (2, 33)):
        x = rng.standard_normal((m, 16, 16 * n)).astype(np.float32)
        y = tvm.runtime.tensor(np.zeros((m, 16 * n, 16), np.float32))
        run(tvm.runtime.tensor(x), y, n)
        np.testing.assert_array_equal(y.numpy(), x.swapaxes(1, 2) + np.float32(1))


@pytest.mark.parametrize("columns", [8, 10, 24, 40])
def test_products_with_weights_of_any_number_of_rows(columns: int) -> None:
    rng = np.random.default_rng(1)
    weight = rng.standard_normal((12, columns)).astype(np.float32)
    packed = packing.pack_matrix(weight, 8)
    func = contractions.dense((N, 12), packed, columns, "float32")
    done, context = scheduled(func)
    assert [record.rule for record in context.kernels] == ["dense"] * len(
        choose.sizes(func, free_axes(func))
    )
    run = compile_kernel(done, target.parse("cpu", 2)).jit()["main"]
    for rows in (1, 3, 4, 5, 13, 15, 16, 17, 31, 48, 62, 63, 64, 65, 79, 80, 127, 129, 191):
        x = rng.standard_normal((rows, 12)).astype(np.float32)
        y = tvm.runtime.tensor(np.zeros((rows, columns), np.float32))
        run(tvm.runtime.tensor(x), tvm.runtime.tensor(packed), y)
        np.testing.assert_allclose(y.numpy(), x @ weight, 1e-4, 1e-5)


@pytest.mark.parametrize("threads", [2, 3])
def test_one_loop_has_the_turns_of_all_large_strips(threads: int) -> None:
    """On which all threads work where there are few, and each on its own where there are many."""
    rng = np.random.default_rng(3)
    weight = rng.standard_normal((64, 96)).astype(np.float32)
    packed = packing.pack_matrix(weight, 16)
    done, context = scheduled(contractions.dense((N, 64), packed, 96, "float32"), threads)
    assert str(done).count("T.parallel(") == len(context.kernels)
    assert "turn" in str(done)
    run = compile_kernel(done, target.parse("cpu", threads)).jit()["main"]
    for rows in (1, 4, 63, 64, 65, 128, 193, 450):
        x = rng.standard_normal((rows, 64)).astype(np.float32)
        y = tvm.runtime.tensor(np.full((rows, 96), np.nan, np.float32))
        run(tvm.runtime.tensor(x), tvm.runtime.tensor(packed), y)
        np.testing.assert_allclose(y.numpy(), x @ weight, 1e-4, 1e-3)


@pytest.mark.parametrize("sizes", [(N, M), (N, 3)])
def test_weights_meet_all_short_strips(sizes: tuple[Any, ...]) -> None:
    rng = np.random.default_rng(2)
    weight = rng.standard_normal((40, 70)).astype(np.float32)
    packed = packing.pack_matrix(weight, 16)
    done, _ = scheduled(contractions.dense((*sizes, 40), packed, 70, "float32"), 1)
    assert strips.INSIDE not in str(done)  # the mark is gone where strips were put
    run = compile_kernel(done, target.parse("cpu", 1)).jit()["main"]
    for n, m in ((1, 1), (7, 3), (2, 21), (1, 66)):
        x = rng.standard_normal((n, 3 if sizes[1] == 3 else m, 40)).astype(np.float32)
        y = tvm.runtime.tensor(np.full((*x.shape[:2], 70), np.nan, np.float32))
        run(tvm.runtime.tensor(x), tvm.runtime.tensor(packed), y)
        np.testing.assert_allclose(y.numpy(), x @ weight, 1e-4, 1e-3)


def test_an_open_kernel_has_a_key_of_its_own() -> None:
    fixed = te.placeholder((4, 3, 5), "float32", "x")
    other = kernel(fixed, te.compute(fixed.shape, lambda i, j, k: fixed[i, j, k] * 2.0, name="y"))
    found = {keys.of_kernel(func).key for func in (scaled(), other, softmax(), triangle())}
    assert len(found) == 4
    assert keys.of_kernel(scaled()).key in found  # whatever the variables' identities


@cache
def kernels(name: str) -> dict[str, Any]:
    plan = plans.plan(Options(threads=2))
    context = Context(plan.target, plan.rules)
    names = [type(step).__name__ for step in plan.steps]
    steps = plan.steps[: names.index("Schedule") + 1]
    module = frontend.load(getattr(open_models, name)()).module
    done = pipeline.run(steps, module, context)
    return {
        var.name_hint: func
        for var, func in done.functions_items()
        if isinstance(func, tirx.PrimFunc) and strips.has_open_sizes(func)
    }


@pytest.mark.parametrize("name", ["digits", "transformer", "joined"])
def test_every_kernel_has_vectors_and_threads(name: str) -> None:
    assert kernels(name)
    for kernel_name, func in kernels(name).items():
        kinds: set[int] = set()
        structural_walk(func.body, (tirx.For, lambda loop: kinds.add(int(loop.kind))))  # noqa: B023
        assert int(tirx.ForKind.PARALLEL) in kinds, kernel_name
        assert int(tirx.ForKind.VECTORIZED) in kinds, kernel_name
