"""Programs of ATen operators that are imported by way of torch.export compute what eager does."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytest
from onnx_models import check

torch = pytest.importorskip("torch")

from hybridc.compiler.errors import ModelError  # noqa: E402 - needs torch
from hybridc.compiler.frontends import torch_model  # noqa: E402
from hybridc.compiler.frontends.torch_import import importer  # noqa: E402
from hybridc.compiler.model import random_feed  # noqa: E402

_TOGETHER = 8  # cases in one program


class Function(torch.nn.Module):
    """A plain function as a module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Any) -> Any:
        return self.function(*inputs)


def imported(function: Callable[..., Any], *inputs: Any) -> Any:
    return torch_model.load(Function(function), inputs, ["torch.export"])


def agree(function: Callable[..., Any], *inputs: Any) -> None:
    """On the inputs given, which may be more special than random ones."""
    model = imported(function, *inputs)
    pairs = [torch.view_as_real(x) if x.is_complex() else x for x in inputs]
    check(model, {spec.name: x.numpy() for spec, x in zip(model.inputs, pairs, strict=True)})


Case = tuple[Callable[..., Any], tuple[Any, ...]]


def agree_on_all(cases: Iterable[Case]) -> None:
    """Functions as parts of one program, which takes little longer to export and build than one."""
    parts = list(cases)

    def together(*inputs: Any) -> Any:
        given, results = iter(inputs), list[Any]()
        for function, own in parts:
            made = function(*(next(given) for _ in own))
            results += made if isinstance(made, tuple) else [made]
        return tuple(results)

    agree(together, *(x for _, own in parts for x in own))


def grouped(cases: Mapping[str, Case]) -> pytest.MarkDecorator:
    """Some cases at a time, called by the first of them."""
    names = list(cases)
    groups = [names[start : start + _TOGETHER] for start in range(0, len(names), _TOGETHER)]
    return pytest.mark.parametrize("names", groups, ids=[group[0] for group in groups])


def matrix(*shape: int) -> Any:
    torch.manual_seed(2)
    return torch.randn(*shape) + 2 * torch.eye(shape[-2], shape[-1])


def positive(n: int) -> Any:
    return matrix(n, n) @ matrix(n, n).mT


# Vectors are right with either sign: what is made of them tells.
def put_together(values: Any, vectors: Any) -> Any:
    return vectors @ torch.diag(values) @ vectors.mT


def multiplied(u: Any, s: Any, v: Any) -> Any:
    return u @ torch.diag(s) @ v


def squares(u: Any, s: Any, v: Any) -> Any:
    return u @ u.mT, v @ v.mT, s


LINALG: dict[str, Case] = {
    "lu": (torch.linalg.lu, (matrix(3, 4),)),
    "lu of many": (torch.linalg.lu, (matrix(2, 2, 4, 3),)),
    "lu_factor": (torch.linalg.lu_factor_ex, (matrix(4, 4),)),
    "det": (torch.linalg.det, (matrix(2, 3, 3),)),
    "slogdet": (torch.linalg.slogdet, (matrix(4, 4),)),
    "inv": (torch.linalg.inv, (matrix(2, 4, 4),)),
    "solve": (torch.linalg.solve, (matrix(3, 3), torch.randn(3, 2))),
    "solve a vector": (torch.linalg.solve, (matrix(3, 3), torch.randn(3))),
    "cholesky": (torch.linalg.cholesky, (positive(4),)),
    "cholesky upper": (lambda x: torch.linalg.cholesky(x, upper=True), (positive(4),)),
    "cholesky_solve": (torch.cholesky_solve, (torch.randn(3, 2), matrix(3, 3).tril())),
    "cholesky_inverse": (torch.cholesky_inverse, (matrix(3, 3).tril(),)),
    "qr": (torch.linalg.qr, (matrix(4, 3),)),
    "qr wide": (torch.linalg.qr, (matrix(2, 3, 5),)),
    "qr complete": (lambda x: torch.linalg.qr(x, mode="complete"), (matrix(4, 3),)),
    "qr r": (lambda x: torch.linalg.qr(x, mode="r")[1], (matrix(4, 3),)),
    "householder": (lambda x: torch.linalg.householder_product(*torch.geqrf(x)), (matrix(5, 3),)),
    "ormqr": (
        lambda x, y: torch.ormqr(*torch.geqrf(x), y, transpose=True),
        (matrix(4, 3), torch.randn(4, 2)),
    ),
    "triangular": (
        lambda a, b: torch.linalg.solve_triangular(a, b, upper=True, left=False),
        (matrix(3, 3), torch.randn(2, 3)),
    ),
    "eigvalsh": (torch.linalg.eigvalsh, (positive(5),)),
    "eigh": (
        lambda x: put_together(*torch.linalg.eigh(x)),
        (positive(4),),
    ),
    "svdvals": (torch.linalg.svdvals, (matrix(4, 6),)),
    "svd": (
        lambda x: multiplied(*torch.linalg.svd(x, full_matrices=False)),
        (matrix(5, 3),),
    ),
    "svd whole": (
        lambda x: squares(*torch.linalg.svd(x)),
        (matrix(2, 5),),
    ),
    "svd of a lower rank": (
        lambda x: multiplied(*torch.linalg.svd(x @ x.new_ones(4, 4), full_matrices=False)),
        (matrix(5, 4),),
    ),
    "pinv": (torch.linalg.pinv, (matrix(3, 5),)),
    "matrix_rank": (torch.linalg.matrix_rank, (matrix(4, 4),)),
    "cond": (torch.linalg.cond, (matrix(4, 4),)),
    "nuclear norm": (lambda x: torch.linalg.matrix_norm(x, "nuc"), (matrix(3, 4),)),
    "matrix_exp": (torch.linalg.matrix_exp, (matrix(3, 3),)),
    "double": (torch.linalg.inv, (matrix(3, 3).double(),)),
}


@grouped(LINALG)
def test_linear_algebra(names: list[str]) -> None:
    agree_on_all(LINALG[name] for name in names)


def values() -> Any:
    torch.manual_seed(3)
    return torch.randn(3, 6)


def ties() -> Any:
    return torch.tensor([[1.0, 3.0, 3.0, 2.0, float("nan"), 4.0]])


def halves() -> Any:
    """Many ties."""
    return (values().sign() + 1) / 2


ORDER: dict[str, Case] = {
    "cummax": (lambda x: torch.cummax(x, 1), (values(),)),
    "cummin of rows": (lambda x: torch.cummin(x, 0), (values(),)),
    "cummax of ties": (lambda x: torch.cummax(x, 1), (ties(),)),
    "kthvalue": (lambda x: torch.kthvalue(x, 3, 1), (values(),)),
    "median": (lambda x: torch.median(x, 1), (values(),)),
    "nanmedian": (lambda x: torch.nanmedian(x, 1)[0], (ties(),)),
    "mode": (lambda x: torch.mode(x.round(), 1)[0], (values(),)),
    "quantile": (lambda x: torch.quantile(x, 0.3, 1), (values(),)),
    "stable": (
        lambda x: (x.sort(stable=True, dim=0), x.argsort(stable=True, dim=1, descending=True)),
        (halves(),),
    ),
    "topk in any order": (lambda x: x.topk(3, sorted=False)[0].sum(1), (values(),)),
    "topk": (lambda x: torch.topk(x, 2, 0, largest=False), (values(),)),
    "histc": (lambda x: torch.histc(x, 5, -1, 1), (values(),)),
    "cdist": (torch.cdist, (values(), values() + 1)),
}


@grouped(ORDER)
def test_order(names: list[str]) -> None:
    agree_on_all(ORDER[name] for name in names)


INDEX = torch.tensor([[0, 2, 1], [2, 2, 0]])
SOURCE = torch.arange(1.0, 13).reshape(3, 4) / 4


@pytest.mark.parametrize("include", [False, True])
@pytest.mark.parametrize("axis", [0, 1])
def test_scatter_reduce(axis: int, include: bool) -> None:
    """The index is smaller than what it points into, and than the source."""
    agree(
        lambda x, i, s: tuple(
            x.scatter_reduce(axis, i, s, reduce, include_self=include)
            for reduce in ("sum", "prod", "mean", "amax", "amin")
        ),
        torch.randn(3, 5),
        INDEX,
        SOURCE,
    )


@pytest.mark.parametrize("axis", [0, 1])
def test_scatter(axis: int) -> None:
    x = torch.randn(3, 5)
    unique = torch.tensor([[0, 2, 1], [1, 0, 2]])
    agree(lambda x, i, s: x.scatter(axis, i, s), x, unique, SOURCE)
    agree(lambda x, i: x.scatter(axis, i, 7.0), x, unique)
    agree(lambda x, i, s: x.scatter_add(axis, i, s), x, INDEX, SOURCE)


POLYNOMIALS = [
    *(f"{kind}chebyshev_polynomial_{letter}" for kind in ("", "shifted_") for letter in "tuvw"),
    "hermite_polynomial_h",
    "hermite_polynomial_he",
    "laguerre_polynomial_l",
    "legendre_polynomial_p",
]


def test_polynomials() -> None:
    x = torch.tensor([-1.0, -0.7, 0.0, 0.3, 1.0]).unsqueeze(1)
    degree = torch.tensor([-1.0, 0.0, 1.0, 2.0, 5.0, 9.0])
    agree_on_all((getattr(torch.special, name), (x, degree)) for name in POLYNOMIALS)


@pytest.mark.parametrize("function", [torch.igamma, torch.igammac])
def test_incomplete_gamma(function: Callable[..., Any]) -> None:
    a = torch.tensor([0.0, 0.01, 0.5, 1.0, 3.0, 40.0, -1.0]).unsqueeze(1)
    x = torch.tensor([0.0, 1e-3, 0.7, 1.0, 5.0, 30.0, 60.0, -2.0])
    agree(function, a, x)


def test_products_keep_their_type() -> None:
    x = torch.randn(2, 3, 4, dtype=torch.float64)
    y = torch.randn(2, 4, 2, dtype=torch.float64)
    model = imported(lambda a, b: (a @ b, torch.addmm(b[0, :, 0], a[0], b[0] @ b[1].mT)), x, y)
    assert {spec.dtype for spec in model.outputs} == {"float64"}
    check(model, random_feed(model.inputs))


def test_what_is_the_same_at_each_call_is_computed_by_torch() -> None:
    model = imported(
        lambda x: x + torch.hann_window(4) * torch.triu_indices(4, 4).sum(), torch.ones(4)
    )
    assert "hann" not in model.module.script()
    check(model)


def test_another_type_than_torch_says_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    known = dict(importer.converters())
    known["sin.default"] = lambda c: c.scope.astype(c["self"], "float64")
    monkeypatch.setattr(importer, "converters", lambda: known)
    with pytest.raises(
        ModelError, match=r"'aten.sin.default' is imported as float64\[3\], not as float32"
    ):
        imported(torch.sin, torch.ones(3))


def test_images_without_a_batch_are_pooled() -> None:
    pool, image = torch.nn.functional.max_pool2d, torch.randn(3, 6, 6)
    agree(lambda x: pool(x, 2).sum((1, 2)), image)
    agree(lambda x: pool(x, 2, return_indices=True), image)
