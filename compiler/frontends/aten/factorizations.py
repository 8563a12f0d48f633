"""Factorisations of matrices: LU, Cholesky, QR, symmetric eigenvalues, singular values.

All are computed in float64, by sequential loops for each matrix, and rounded once.  Vectors of
eigenvalues and singular values have signs of their own: any are right.
"""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from hybridc.compiler.frontends.aten import _jacobi_kernels as jacobi
from hybridc.compiler.frontends.aten import _matrix_kernels as matrix
from hybridc.compiler.frontends.aten.call import Call, Converter
from hybridc.compiler.frontends.aten.kernels import as_result, batched, call, wide
from hybridc.compiler.frontends.onnx.node import Expr, Scope, static
from hybridc.compiler.ir.rewrite import constant

# Jacobi's methods square the fault in each sweep once it is small; matrices of hundreds take ten.
_SWEEPS = 16


def _as_results(c: Call, factors: tuple[Expr, ...]) -> tuple[Expr, ...] | Expr:
    """Each result in torch's shape and type."""
    pairs = zip(factors, c.results, strict=True)
    results = tuple(as_result(c.scope, x, *result) for x, result in pairs)
    return results if isinstance(c.value, tuple | list) else results[0]


def _matrices(c: Call, name: str) -> Expr:
    """An argument as `[matrices, rows, columns]` of float64."""
    return batched(c.scope, wide(c.scope, c[name]), 2)


def _lu(s: Scope, x: Expr, pivoting: bool) -> tuple[Expr, ...]:
    many, m, n = static(x)
    k = min(m, n)
    results = [((many, m, n), "float64"), ((many, k), "int32"), ((many,), "int32")]
    names = {"many": many, "m": m, "n": n, "k": k, "pivoting": int(pivoting)}
    return call(s, "lu", matrix.LU, [x], results, **names)


def _lu_factor(c: Call) -> tuple[Expr, ...] | Expr:
    return _as_results(c, _lu(c.scope, _matrices(c, "A"), c["pivot"]))


def _lu_unpack(c: Call) -> tuple[Expr, ...] | Expr:
    """P, L and U; torch gives empty ones for what is not asked for."""
    s, (*_, m, n) = c.scope, c.shape("LU_data")
    packed, k = batched(s, c["LU_data"], 2), min(c.shape("LU_data")[-2:])
    many = static(packed)[0]
    pivots = batched(s, c["LU_pivots"], 1)
    names = {"many": many, "m": m, "k": k}
    (order,) = call(s, "permutation", matrix.PERMUTATION, [pivots], [((many, m), "int32")], **names)
    # P[i, j] is 1 where row i of the product is row i of L U moved to order[j].
    rows = constant(np.arange(m)[None, :, None], "int32")
    permutation = s.equal(rows, s.reshape(order, [many, 1, m]))
    lower = s.strided_slice(packed, [2], [0], [k]) if n > k else packed
    upper = s.strided_slice(packed, [1], [0], [k]) if m > k else packed
    unit = constant(np.eye(m, k)[None], str(packed.ty.dtype))
    factors = (permutation, s.add(s.tril(lower, k=-1), unit), s.triu(upper))
    shapes = [shape for shape, _ in c.results]
    nothing = [constant(np.zeros(shape), kind) for shape, kind in c.results]
    kept = [
        empty if 0 in shape else x for x, shape, empty in zip(factors, shapes, nothing, strict=True)
    ]
    return _as_results(c, tuple(kept))


def _cholesky_factor(s: Scope, x: Expr, upper: bool) -> tuple[Expr, Expr]:
    """The lower factor of the matrix whose lower (upper) triangle is given, or its transposed."""
    x = s.permute_dims(x, [0, 2, 1]) if upper else x
    many, n, _ = static(x)
    results = [((many, n, n), "float64"), ((many,), "int32")]
    factor, info = call(s, "cholesky", matrix.CHOLESKY, [x], results, many=many, n=n)
    return (s.permute_dims(factor, [0, 2, 1]) if upper else factor), info


def _cholesky(c: Call) -> tuple[Expr, ...] | Expr:
    return _as_results(c, (_cholesky_factor(c.scope, _matrices(c, "self"), c["upper"])[0],))


def _cholesky_ex(c: Call) -> tuple[Expr, ...] | Expr:
    return _as_results(c, _cholesky_factor(c.scope, _matrices(c, "self"), c["upper"]))


def _solve_triangular(c: Call) -> tuple[Expr, ...] | Expr:
    """X with A X = B, or X A = B; A's other triangle is not read."""
    s, shape = c.scope, c.results[0][0]
    outer = list(shape[:-2])
    a = s.broadcast_to(wide(s, c["self"]), [*outer, *c.shape("self")[-2:]])
    b = s.broadcast_to(wide(s, c["B"]), [*outer, *c.shape("B")[-2:]])
    a, b, upper = batched(s, a, 2), batched(s, b, 2), bool(c["upper"])
    if not c["left"]:
        a, b, upper = s.permute_dims(a, [0, 2, 1]), s.permute_dims(b, [0, 2, 1]), not upper
    solution = _triangular(s, a, b, upper, c["unitriangular"])
    return _as_results(c, (solution if c["left"] else s.permute_dims(solution, [0, 2, 1]),))


def _triangular(s: Scope, a: Expr, b: Expr, upper: bool, unit: bool) -> Expr:
    many, n, m = static(b)
    names = {"many": many, "n": n, "m": m, "unit": int(unit)}
    order = {"first": n - 1, "step": -1} if upper else {"first": 0, "step": 1}
    results = [((many, n, m), "float64")]
    return call(s, "triangular", matrix.TRIANGULAR, [a, b], results, **names, **order)[0]


def _householder(s: Scope, x: Expr) -> tuple[Expr, ...]:
    """R above reflections, and their factors."""
    many, m, n = static(x)
    k = min(m, n)
    results = [((many, m, n), "float64"), ((many, k), "float64")]
    return call(s, "qr", matrix.QR, [x], results, many=many, m=m, n=n, k=k)


def _reflected(s: Scope, x: Expr, tau: Expr, columns: int) -> Expr:
    """The first columns of the product of reflections."""
    many, m, n = static(x)
    k = static(tau)[1]
    names = {"many": many, "m": m, "n": n, "k": k, "c": columns}
    results = [((many, m, columns), "float64")]
    return call(s, "reflected", matrix.REFLECTED, [x, tau], results, **names)[0]


def _geqrf(c: Call) -> tuple[Expr, ...] | Expr:
    return _as_results(c, _householder(c.scope, _matrices(c, "self")))


def _qr(c: Call) -> tuple[Expr, ...] | Expr:
    s, (*_, m, n) = c.scope, c.shape("A")
    packed, tau = _householder(s, _matrices(c, "A"))
    rows = m if c["mode"] == "complete" else min(m, n)
    r = s.triu(s.strided_slice(packed, [1], [0], [rows]) if rows < m else packed)
    if c["mode"] == "r":
        return _as_results(c, (constant(np.zeros(0), "float64"), r))
    return _as_results(c, (_reflected(s, packed, tau, rows), r))


def _householder_product(c: Call) -> tuple[Expr, ...] | Expr:
    tau = batched(c.scope, wide(c.scope, c["tau"]), 1)
    return _as_results(c, (_reflected(c.scope, _matrices(c, "input"), tau, c.shape("input")[-1]),))


def _ormqr(c: Call) -> tuple[Expr, ...] | Expr:
    """A product with the whole orthogonal matrix of reflections."""
    s, x, other = c.scope, _matrices(c, "self"), _matrices(c, "input3")
    tau = batched(s, wide(s, c["input2"]), 1)
    q = _reflected(s, x, tau, static(x)[1])
    q = s.permute_dims(q, [0, 2, 1]) if c["transpose"] else q
    return _as_results(c, (s.matmul(q, other) if c["left"] else s.matmul(other, q),))


def _eigh(c: Call) -> tuple[Expr, ...] | Expr:
    """Eigenvalues and vectors of the symmetric matrix of which one triangle is read."""
    s, x = c.scope, _matrices(c, "A")
    many, n, _ = static(x)
    half = s.tril(x) if c["UPLO"].upper() == "L" else s.triu(x)
    diagonal = s.multiply(x, np.eye(n)[None])
    whole = s.subtract(s.add(half, s.permute_dims(half, [0, 2, 1])), diagonal)
    results = [((many, n), "float64"), ((many, n, n), "float64")]
    names = {"many": many, "n": n, "sweeps": _SWEEPS}
    values, vectors = call(s, "eigh", jacobi.SYMMETRIC, [whole], results, **names)
    return _as_results(c, (values, vectors if c["compute_v"] else _none()))


def _none() -> Expr:
    return constant(np.zeros(0), "float64")


def _svd(c: Call) -> tuple[Expr, ...] | Expr:
    """U, S, V transposed: of a wide matrix those of its transposed, the other way round.

    U is made orthogonal by reflections: it is whole where singular values are 0, or more columns
    than those of the matrix are wanted.
    """
    s, x = c.scope, _matrices(c, "A")
    wider = static(x)[1] < static(x)[2]
    x = s.permute_dims(x, [0, 2, 1]) if wider else x
    many, m, n = static(x)
    results = [((many, m, n), "float64"), ((many, n), "float64"), ((many, n, n), "float64")]
    names = {"many": many, "m": m, "n": n, "sweeps": _SWEEPS}
    turned, values, right = call(s, "svd", jacobi.ONE_SIDED, [x], results, **names)
    if not c["compute_uv"]:
        return _as_results(c, (_none(), values, _none()))
    packed, tau = _householder(s, turned)
    left = _reflected(s, packed, tau, m if c["full_matrices"] else n)
    # Reflections may turn a column's sign, which the diagonal of R tells.
    diagonal = s.sum(s.multiply(packed, np.eye(m, n)[None]), axis=[1])
    signs = s.where(s.less(diagonal, 0.0), *(constant(np.array(v), "float64") for v in (-1, 1)))
    signs = s.reshape(signs, [many, 1, n])
    if c["full_matrices"] and m > n:
        signs = s.concat([signs, constant(np.ones((many, 1, m - n)), "float64")], axis=2)
    left = s.multiply(left, signs)
    first, last = (right, left) if wider else (left, right)
    return _as_results(c, (first, values, s.permute_dims(last, [0, 2, 1])))


def _unless_empty(converter: Converter) -> Converter:
    """A converter of matrices; of those without elements all results are zeros or empty."""

    def convert(c: Call) -> tuple[Expr, ...] | Expr:
        if any(0 in value.shape for value in c.values.values()):
            zeros = tuple(constant(np.zeros(shape), kind) for shape, kind in c.results)
            return zeros if isinstance(c.value, tuple | list) else zeros[0]
        return converter(c)

    return convert


CONVERTERS: Mapping[str, Converter] = MappingProxyType(
    {
        name: _unless_empty(converter)
        for name, converter in {
            "_linalg_eigh.default": _eigh,
            "_linalg_svd.default": _svd,
            "cholesky.default": _cholesky,
            "geqrf.default": _geqrf,
            "linalg_cholesky_ex.default": _cholesky_ex,
            "linalg_householder_product.default": _householder_product,
            "linalg_lu_factor_ex.default": _lu_factor,
            "linalg_qr.default": _qr,
            "linalg_solve_triangular.default": _solve_triangular,
            "lu_unpack.default": _lu_unpack,
            "ormqr.default": _ormqr,
        }.items()
    }
)
