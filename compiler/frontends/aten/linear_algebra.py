"""Solving, inverting and measuring matrices by their factorisations, computed in float64."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch

Tensor = Any  # torch.Tensor
ops = torch.ops.aten

_SQUARINGS = 16  # exp(A) = exp(A / 2^16)^(2^16): float64 keeps ten digits through them
_TAYLOR = 10  # of a matrix whose norm is 1: the next term is 3e-8 before it is squared away


def _determinant(A: Tensor) -> tuple[Tensor, ...]:  # noqa: N803 - torch's name of the argument
    packed, pivots, _ = ops.linalg_lu_factor_ex(A.double())
    diagonal = packed.diagonal(dim1=-2, dim2=-1)
    determinant = diagonal.prod(-1) * _parity(pivots)
    return determinant.to(A.dtype), packed.to(A.dtype), pivots


def _log_determinant(A: Tensor) -> tuple[Tensor, ...]:  # noqa: N803
    packed, pivots, _ = ops.linalg_lu_factor_ex(A.double())
    diagonal = packed.diagonal(dim1=-2, dim2=-1)
    sign = diagonal.sign().prod(-1) * _parity(pivots)
    size = diagonal.abs().log().sum(-1)
    return sign.to(A.dtype), size.to(A.dtype), packed.to(A.dtype), pivots


def _parity(pivots: Tensor) -> Tensor:
    """1 where an even number of rows was swapped, else -1."""
    place = torch.arange(1, pivots.shape[-1] + 1, dtype=pivots.dtype)
    odd = (pivots != place).sum(-1) % 2
    return 1.0 - 2.0 * odd.double()


def _solve(
    A: Tensor,  # noqa: N803
    B: Tensor,  # noqa: N803
    *,
    left: bool = True,
    check_errors: bool = False,
) -> tuple[Tensor, ...]:
    del check_errors  # what is singular gives infinities
    packed, pivots, info = ops.linalg_lu_factor_ex(A.double())
    vector = B.ndim == 1 or (A.ndim - 1 == B.ndim and B.shape == A.shape[:-1])
    right = B.double().unsqueeze(-1) if vector else B.double()
    solution = ops.linalg_lu_solve(packed, pivots, right, left=left)
    solution = solution.squeeze(-1) if vector else solution
    return solution.to(A.dtype), packed.to(A.dtype), pivots, info


def _inverse(A: Tensor, *, check_errors: bool = False) -> tuple[Tensor, Tensor]:  # noqa: N803
    del check_errors
    packed, pivots, info = ops.linalg_lu_factor_ex(A.double())
    unit = torch.eye(A.shape[-1], dtype=torch.float64).expand(A.shape)
    return ops.linalg_lu_solve(packed, pivots, unit).to(A.dtype), info


def _lu(A: Tensor, *, pivot: bool = True) -> tuple[Tensor, ...]:  # noqa: N803
    packed, pivots, _ = ops.linalg_lu_factor_ex(A, pivot=pivot)
    factors: tuple[Tensor, ...] = ops.lu_unpack(packed, pivots, True, pivot)
    return factors


def _lu_solve(
    LU: Tensor,  # noqa: N803
    pivots: Tensor,
    B: Tensor,  # noqa: N803
    *,
    left: bool = True,
    adjoint: bool = False,
) -> Tensor:
    if not left:
        solution = _lu_solve(LU, pivots, B.mT, adjoint=not adjoint).mT
        return solution.contiguous()
    permutation, lower, upper = ops.lu_unpack(LU.double(), pivots)
    right, solve = B.double(), ops.linalg_solve_triangular
    if adjoint:
        inner = solve(upper.mT, right, upper=False)
        inner = solve(lower.mT, inner, upper=True, unitriangular=True)
        return (permutation @ inner).to(B.dtype)
    inner = solve(lower, permutation.mT @ right, upper=False, unitriangular=True)
    return solve(upper, inner, upper=True).to(B.dtype)


def _cholesky_inverse(self: Tensor, upper: bool = False) -> Tensor:
    factor = self.double().mT if upper else self.double()
    unit = torch.eye(self.shape[-1], dtype=torch.float64).expand(self.shape)
    inner = ops.linalg_solve_triangular(factor, unit, upper=False)
    return (inner.mT @ inner).to(self.dtype)


def _cholesky_solve(self: Tensor, A: Tensor, upper: bool) -> Tensor:  # noqa: N803
    factor = A.double().mT if upper else A.double()
    inner = ops.linalg_solve_triangular(factor, self.double(), upper=False)
    return ops.linalg_solve_triangular(factor.mT, inner, upper=True).to(self.dtype)


def _broadcast_cholesky_solve(self: Tensor, input2: Tensor, upper: bool = False) -> Tensor:
    return _cholesky_solve(self, input2, upper)


def _triangular_solve(
    self: Tensor,
    A: Tensor,  # noqa: N803
    upper: bool = True,
    transpose: bool = False,
    unitriangular: bool = False,
) -> tuple[Tensor, Tensor]:
    factor = A.mT if transpose else A
    solution = ops.linalg_solve_triangular(
        factor, self, upper=upper != transpose, unitriangular=unitriangular
    )
    return solution, A.clone()


def _pseudo_inverse(
    self: Tensor,
    *,
    atol: Tensor | None = None,
    rtol: Tensor | None = None,
    hermitian: bool = False,
) -> Tensor:
    """By singular values, of which those within the tolerance count as 0.

    Of a Hermitian matrix the lower triangle alone is read.
    """
    x = self.double()
    if hermitian:
        x = x.tril() + x.tril(-1).mT
    left, values, right = ops._linalg_svd(x, False, True)
    largest = values.amax(-1, keepdim=True)
    usual = max(self.shape[-2:]) * torch.finfo(self.dtype).eps
    absolute = 0.0 if atol is None else atol.double().unsqueeze(-1)
    if rtol is not None:
        relative = rtol.double().unsqueeze(-1)
    elif atol is not None:
        relative = torch.where(atol.double() > 0, 0.0, usual).unsqueeze(-1)
    else:
        relative = usual
    kept = values > torch.maximum(largest * relative, largest * 0 + absolute)
    inverse = torch.where(kept, 1 / torch.where(kept, values, 1.0), 0.0)
    return (right.mT @ (inverse.unsqueeze(-1) * left.mT)).to(self.dtype)


def _matrix_exponential(self: Tensor) -> Tensor:
    x = self.double() / 2**_SQUARINGS
    unit = torch.eye(self.shape[-1], dtype=torch.float64).expand(self.shape)
    power = unit
    for k in range(_TAYLOR, 0, -1):
        power = unit + x @ power / k
    for _ in range(_SQUARINGS):
        power = power @ power
    return power.to(self.dtype)


DECOMPOSITIONS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        "_cholesky_solve_helper.default": _cholesky_solve,
        "_linalg_det.default": _determinant,
        "_linalg_slogdet.default": _log_determinant,
        "_linalg_solve_ex.default": _solve,
        "cholesky_inverse.default": _cholesky_inverse,
        "cholesky_solve.default": _broadcast_cholesky_solve,
        "linalg_inv_ex.default": _inverse,
        "linalg_lu.default": _lu,
        "linalg_lu_solve.default": _lu_solve,
        "linalg_matrix_exp.default": _matrix_exponential,
        "linalg_pinv.atol_rtol_tensor": _pseudo_inverse,
        "triangular_solve.default": _triangular_solve,
    }
)
