"""Each decomposition of an ATen operator gives what torch gives, over drawn values and at edges."""

import math
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from hybridc.compiler.frontends.torch_import import decompositions  # noqa: E402 - needs torch

aten = torch.ops.aten
WIDE = (-30.0, 30.0)
POSITIVE = (0.0, 30.0)
SPECIAL: dict[str, tuple[float, float]] = {
    "digamma": WIDE,
    "erfc": (-6, 9),
    "erfinv": (-1, 1),
    "i0": WIDE,
    "lgamma": WIDE,
    "special_airy_ai": (-25, 25),
    "special_bessel_j0": (-60, 60),
    "special_bessel_j1": (-60, 60),
    "special_bessel_y0": (0, 60),
    "special_bessel_y1": (0, 60),
    "special_erfcx": (-5, 40),
    "special_i0e": (-80, 80),
    "special_i1": WIDE,
    "special_i1e": (-80, 80),
    "special_modified_bessel_i0": WIDE,
    "special_modified_bessel_i1": WIDE,
    "special_modified_bessel_k0": (0, 40),
    "special_modified_bessel_k1": (0, 40),
    "special_ndtri": (0, 1),
    "special_scaled_modified_bessel_k0": (0, 40),
    "special_scaled_modified_bessel_k1": (0, 40),
    "special_spherical_bessel_j0": WIDE,
}
EDGES = (0.0, -0.0, 1.0, -1.0, 2.0, 0.5, -0.5, 1e-6, -1e-6, 1e-30, 100.0, math.inf, math.nan)
# Where torch itself has no limit, or another than mathematics.
LAWLESS = {
    "i0": {math.inf},
    "special_i0e": {math.inf},
    "special_i1": {math.inf},
    "special_i1e": {math.inf},
    "special_modified_bessel_i0": {math.inf},
    "special_modified_bessel_i1": {math.inf},
}


def ours(name: str, overload: str = "default") -> Callable[..., Any]:
    return decompositions.own()[getattr(getattr(aten, name), overload)]


def same(got: Any, wanted: Any, **limits: float) -> None:
    torch.testing.assert_close(got, wanted, equal_nan=True, **limits)


@pytest.mark.parametrize("name", SPECIAL)
def test_special_functions(name: str) -> None:
    low, high = SPECIAL[name]
    torch.manual_seed(0)
    drawn = torch.rand(2000, dtype=torch.float64) * (high - low) + low
    near = (torch.rand(200, dtype=torch.float64) * 2 - 1) * 1e-3
    edges = [e for e in EDGES if e not in LAWLESS.get(name, set())]
    x = torch.cat([drawn, near, torch.tensor(edges, dtype=torch.float64)])
    single = x.float()
    operator = getattr(aten, name).default
    # Torch's own float32 is not always better than 1e-5; its float64 is the judge.
    same(ours(name)(single), operator(single.double()).float(), rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("order", range(4))
def test_polygamma(order: int) -> None:
    x = torch.cat([torch.linspace(0.05, 30, 400), -torch.rand(200) * 8 - 0.1, torch.tensor([0.0])])
    wanted = aten.polygamma(order, x.double()).float()
    away = (x - x.round()).abs() > 0.02
    kept = away | (x >= 1) | (x == 0)
    same(ours("polygamma")(order, x)[kept], wanted[kept], rtol=1e-4, atol=1e-4)


def test_zeta() -> None:
    s = torch.tensor([1.0, 0.5, 1.5, 2.0, 3.0, 7.0, 2.5]).unsqueeze(1)
    q = torch.tensor([0.1, 0.5, 1.0, 3.0, 50.0, -0.5, -3.5, -80.25, 0.0, -2.0])
    same(
        ours("special_zeta")(s, q),
        aten.special_zeta(s.double(), q.double()).float(),
        rtol=1e-4,
        atol=1e-6,
    )


@pytest.mark.parametrize("p", [0.0, 0.5, 1.0, 2.0, 3.0, math.inf])
def test_distances(p: float) -> None:
    x, y = torch.randn(2, 5, 3), torch.randn(1, 4, 3)
    same(ours("_cdist_forward")(x, y, p, None), torch.cdist(x, y, p))
    same(ours("_pdist_forward")(x[0], p), torch.nn.functional.pdist(x[0], p))


@pytest.mark.parametrize(("low", "high"), [(0, 0), (-1, 1), (0.5, 0.5)])
def test_histograms(low: float, high: float) -> None:
    x = torch.randn(100)
    same(ours("histc")(x, 7, low, high), torch.histc(x, 7, low, high))


def test_masked_scatter() -> None:
    x, mask = torch.zeros(3, 4), torch.rand(3, 4) > 0.5
    source = torch.arange(12.0)
    same(ours("masked_scatter")(x, mask, source), x.masked_scatter(mask, source))
    row = torch.rand(4) > 0.5
    same(ours("masked_scatter")(x, row, source), x.masked_scatter(row, source))


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_windows(axis: int, size: int, step: int) -> None:
    x = torch.randn(4, 5, 3)
    same(ours("unfold")(x, axis, size, step), x.unfold(axis, size, step))


@pytest.mark.parametrize("x", [torch.randn(4, 5), torch.randn(5, 4).t(), torch.randn(1, 20).t()])
def test_strided_views(x: Any) -> None:
    size, stride = (2, 3), (7, 2)
    same(ours("as_strided")(x, size, stride, 1), x.as_strided(size, stride, 1))
    source = torch.randn(2, 3)
    made = ours("as_strided_scatter")(x, source, size, stride, 1)
    same(made, torch.as_strided_scatter(x, source, size, stride, 1))


@pytest.mark.parametrize("accumulate", [False, True])
def test_put(accumulate: bool) -> None:
    x, index = torch.zeros(3, 4), torch.tensor([[1, -2], [7, 3]])
    source = torch.randn(2, 2)
    same(ours("put")(x, index, source, accumulate), x.put(index, source, accumulate))


@pytest.mark.parametrize("reduce", ["prod", "mean", "amax", "amin"])
@pytest.mark.parametrize("include", [False, True])
def test_index_reduce(reduce: str, include: bool) -> None:
    x, index, source = torch.rand(3, 4), torch.tensor([0, 2, 0]), torch.rand(3, 3)
    made = ours("index_reduce")(x, 1, index, source, reduce, include_self=include)
    same(made, x.index_reduce(1, index, source, reduce, include_self=include))


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_ranks(axis: int, keep: bool) -> None:
    x = torch.randn(3, 5, 4)
    same(ours("kthvalue")(x, 2, axis, keep), tuple(torch.kthvalue(x, 2, axis, keep)))
    same(ours("median", "dim")(x, axis, keep), tuple(torch.median(x, axis, keep)))
    same(ours("nanmedian", "dim")(x, axis, keep), tuple(torch.nanmedian(x, axis, keep)))
    same(ours("mode")(x.round(), axis, keep)[0], torch.mode(x.round(), axis, keep)[0])


def test_medians_of_what_is_no_number() -> None:
    x = torch.tensor([[1.0, math.nan, 3.0, 2.0], [4.0, 3.0, 2.0, 1.0], [math.nan] * 4])
    same(ours("median", "dim")(x, 1)[0], torch.median(x, 1)[0])
    same(ours("nanmedian", "dim")(x, 1)[0], torch.nanmedian(x, 1)[0])
    same(ours("median")(x), torch.median(x))
    same(ours("nanmedian")(x[:2]), torch.nanmedian(x[:2]))


def matrices(*shape: int) -> Any:
    torch.manual_seed(1)
    return torch.randn(*shape) + 3 * torch.eye(shape[-2], shape[-1])


@pytest.mark.parametrize("shape", [(4, 4), (2, 3, 3), (1, 1)])
def test_solving(shape: tuple[int, ...]) -> None:
    a, b = matrices(*shape), torch.randn(*shape[:-1], 2)
    same(ours("_linalg_det")(a)[0], torch.linalg.det(a), rtol=1e-4, atol=1e-5)
    same(ours("_linalg_slogdet")(a)[:2], tuple(torch.linalg.slogdet(a)), rtol=1e-4, atol=1e-5)
    same(ours("_linalg_solve_ex")(a, b)[0], torch.linalg.solve(a, b), rtol=1e-4, atol=1e-5)
    other = b.mT.contiguous()
    left = ours("_linalg_solve_ex")(a, other, left=False)[0]
    same(left, torch.linalg.solve(a, other, left=False), rtol=1e-4, atol=1e-5)
    same(ours("linalg_inv_ex")(a)[0], torch.linalg.inv(a), rtol=1e-4, atol=1e-5)
    packed, pivots = torch.linalg.lu_factor(a)
    for options in ({}, {"adjoint": True}):
        wanted = torch.linalg.lu_solve(packed, pivots, b, **options)
        same(ours("linalg_lu_solve")(packed, pivots, b, **options), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("upper", [False, True])
def test_solving_by_triangles(upper: bool) -> None:
    positive = matrices(3, 3) @ matrices(3, 3).mT
    factor, b = torch.linalg.cholesky(positive, upper=upper), torch.randn(3, 2)
    same(
        ours("cholesky_inverse")(factor, upper),
        torch.cholesky_inverse(factor, upper=upper),
        rtol=1e-4,
        atol=1e-5,
    )
    same(
        ours("_cholesky_solve_helper")(b, factor, upper),
        torch.cholesky_solve(b, factor, upper=upper),
        rtol=1e-4,
        atol=1e-5,
    )
    for transpose in (False, True):
        for unit in (False, True):
            made = ours("triangular_solve")(b, matrices(3, 3), upper, transpose, unit)[0]
            wanted = torch.triangular_solve(b, matrices(3, 3), upper, transpose, unit)[0]
            same(made, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (4, 4)])
def test_pseudo_inverse(shape: tuple[int, int]) -> None:
    a = torch.randn(*shape)
    a[:, 0] = a[:, 1]
    made = ours("linalg_pinv", "atol_rtol_tensor")(a)
    same(made, torch.linalg.pinv(a), rtol=1e-3, atol=1e-4)


def test_pseudo_inverse_of_a_triangle() -> None:
    x = torch.randn(2, 4, 4)
    got = ours("linalg_pinv", "atol_rtol_tensor")(x, hermitian=True)
    same(got, torch.linalg.pinv(x, hermitian=True), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("window", "stride", "padding"), [(3, 1, 1), ((3, 2), (2, 1), 0), (2, (), 1)]
)
@pytest.mark.parametrize("ceil", [False, True])
def test_averages_by_a_divisor(window: Any, stride: Any, padding: int, ceil: bool) -> None:
    x = torch.randn(2, 3, 7, 9)
    options = (window, stride, padding, ceil, False)
    got = ours("avg_pool2d")(x, *options, 5)
    same(got, torch.nn.functional.avg_pool2d(x, window, stride or None, *options[2:], 5))
    assert ours("avg_pool2d")(x, *options) is NotImplemented
    volume = torch.randn(1, 2, 5, 6, 7)
    got = ours("avg_pool3d")(volume, [2], [], [1], ceil, True, -3)
    same(got, torch.nn.functional.avg_pool3d(volume, 2, None, 1, ceil, True, -3))


@pytest.mark.parametrize("scale", [0.01, 1.0, 8.0])
def test_matrix_exponential(scale: float) -> None:
    a = torch.randn(2, 4, 4) * scale
    same(
        ours("linalg_matrix_exp")(a),
        torch.linalg.matrix_exp(a.double()).float(),
        rtol=1e-4,
        atol=1e-5,
    )


@pytest.mark.parametrize("mode", [0, 1])
@pytest.mark.parametrize("padding", [0, 1, 2])
@pytest.mark.parametrize("corners", [False, True])
def test_sampling_of_volumes(mode: int, padding: int, corners: bool) -> None:
    torch.manual_seed(4)
    x, grid = torch.randn(2, 3, 4, 5, 3), torch.rand(2, 2, 3, 4, 3) * 3 - 1.5
    made = ours("grid_sampler_3d")(x, grid, mode, padding, corners)
    same(made, aten.grid_sampler_3d(x, grid, mode, padding, corners), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(5, 3), (2, 3, 4, 5)])
def test_norms_of_batches(shape: tuple[int, ...], training: bool) -> None:
    x, weight, bias = torch.randn(shape) * 3 + 1, torch.rand(3), torch.rand(3)
    given = (torch.rand(3), torch.rand(3) + 1, training, 0.3, 1e-5)
    for scales in ((weight, bias), (None, None)):
        operator = aten._native_batch_norm_legit_functional.default
        got = ours("_native_batch_norm_legit_functional")(x, *scales, *given)
        for one, wanted in zip(got, operator(x, *scales, *given), strict=True):
            same(one, wanted)
        got = ours("_native_batch_norm_legit", "no_stats")(x, *scales, True, 0.3, 1e-5)
        wanted = aten._native_batch_norm_legit.no_stats(x, *scales, True, 0.3, 1e-5)
        for one, other in zip(got, wanted, strict=True):
            same(one, other)


def test_what_stays_is_written_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negation of floats is written with negation; each round traces the whole program anew."""
    rounds: list[set[str]] = []
    write_out = torch.export.ExportedProgram.run_decompositions

    def counted(program: Any, table: Any) -> Any:
        rounds.append({str(target) for target in table})
        return write_out(program, table)

    monkeypatch.setattr(torch.export.ExportedProgram, "run_decompositions", counted)
    model = torch.nn.Module()
    model.forward = lambda x: -torch.diff(x)  # pyright: ignore[reportAttributeAccessIssue]
    exported = torch.export.export(model, (torch.ones(2, 8),))
    written = decompositions.for_onnx(exported)
    assert rounds == [{"aten.neg.default", "aten.diff.default"}]
    left = {str(node.target) for node in written.graph.nodes}
    assert "aten.neg.default" in left
    assert "aten.diff.default" not in left
