"""Covariances, histograms, reductions of segments, and least squares."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch

from hybridc.compiler.errors import UnsupportedError

Tensor = Any  # torch.Tensor


def covariance(
    self: Tensor,
    *,
    correction: int = 1,
    fweights: Tensor | None = None,
    aweights: Tensor | None = None,
) -> Tensor:
    """Of the rows; torch's own code asks whether what it divides by is above 0."""
    rows = self.reshape(1, -1) if self.ndim < 2 else self
    kind = rows.dtype if rows.is_floating_point() or rows.is_complex() else torch.float32
    rows = rows.to(kind)
    weights = _product(fweights, aweights, rows)
    total = weights.sum()
    mean = (rows * weights).sum(1) / total
    if aweights is not None and correction != 0:
        freedom = total - correction * (weights * aweights).sum() / total
    else:
        freedom = total - correction
    centred = rows - mean.unsqueeze(1)
    products = centred @ (centred * weights).mT.conj()
    return (products / freedom.clamp(min=0)).squeeze()


def _product(one: Tensor | None, two: Tensor | None, rows: Tensor) -> Tensor:
    real = rows.real if rows.is_complex() else rows
    product = torch.ones(rows.shape[1], dtype=real.dtype)
    for weights in (one, two):
        product = product if weights is None else product * weights.to(real.dtype)
    return product


def correlation(self: Tensor) -> Tensor:
    """The covariances over the deviations of both, within -1 and 1."""
    matrix = covariance(self)
    if matrix.ndim == 0:
        return matrix / matrix
    variance = matrix.diagonal()
    deviation = (variance.real if variance.is_complex() else variance).sqrt()
    matrix = matrix / deviation.unsqueeze(1) / deviation.unsqueeze(0)
    if matrix.is_complex():
        return torch.complex(matrix.real.clamp(-1, 1), matrix.imag.clamp(-1, 1))
    return matrix.clamp(-1, 1)


def least_squares(
    self: Tensor, b: Tensor, rcond: float | None = None, *, driver: str | None = None
) -> Any:
    """The shortest solution, by singular values; residuals where the driver gives them.

    Two drivers give residuals only of matrices whose rank is full, which the data tell.
    """
    rows, columns = self.shape[-2:]
    if driver in ("gelsd", "gelss") and rows > columns:
        raise UnsupportedError(f"the driver {driver!r}, whose residuals depend on the data")
    vector = b.ndim == 1 or (self.ndim - 1 == b.ndim and b.shape == self.shape[:-1])
    right = b.unsqueeze(-1) if vector else b
    limit = torch.finfo(self.dtype).eps * max(rows, columns) if rcond is None else rcond
    solution = torch.linalg.pinv(self, rtol=limit) @ right
    residuals = self.new_zeros(0)
    if driver == "gels" and rows > columns:
        residuals = (self @ solution - right).square().sum(-2)
    values = torch.linalg.svdvals(self)
    rank = self.new_zeros(0, dtype=torch.int64)
    if driver != "gels":
        rank = (values > limit * values.amax(-1, keepdim=True)).sum(-1)
    kept = values if driver in ("gelsd", "gelss") else self.new_zeros(0)
    answer = solution.squeeze(-1) if vector else solution
    return torch.return_types.linalg_lstsq((answer, residuals, rank, kept))


def _segments(  # noqa: PLR0913 - torch's own signature
    data: Tensor,
    reduce: str,
    *,
    lengths: Tensor = None,
    indices: Tensor = None,
    offsets: Tensor = None,
    axis: int = 0,
    unsafe: bool = False,
    initial: float | None = None,
) -> Tensor:
    """Neighbours along an axis, reduced by segments whose lengths or borders are given."""
    del indices, unsafe  # torch itself takes no indices
    extents: Any = offsets if lengths is None else lengths  # torch requires one of the two
    lengths = (extents.diff(dim=axis) if lengths is None else extents).to(torch.int64)
    outer = data.shape[:axis]
    place = torch.arange(data.shape[axis]).reshape([1] * axis + [-1, 1])
    ends = lengths.cumsum(axis).unsqueeze(axis)  # [outer, 1, segments]
    segment = (place >= ends).sum(-1).clamp(max=lengths.shape[axis] - 1)  # [outer, n]
    extra = [1] * (data.ndim - axis - 1)
    index = segment.reshape(*segment.shape, *extra).expand(data.shape)
    shape = (*outer, lengths.shape[axis], *data.shape[axis + 1 :])
    start = _START[reduce] if initial is None else initial
    begun = torch.full(shape, float(start), dtype=data.dtype)
    reduced = torch.scatter_reduce(begun, axis, index, data, _NAMES[reduce])
    if reduce != "mean":
        return reduced
    count = lengths.reshape(*lengths.shape, *extra)
    empty = torch.full_like(reduced, torch.nan) if initial is None else reduced
    return torch.where(count > 0, reduced / count.clamp(min=1).to(reduced.dtype), empty)


_START = MappingProxyType(
    {"sum": 0.0, "mean": 0.0, "prod": 1.0, "max": -torch.inf, "min": torch.inf}
)
_NAMES = MappingProxyType(
    {"sum": "sum", "mean": "sum", "prod": "prod", "max": "amax", "min": "amin"}
)


def _histogram(
    self: Tensor,
    bins: int,
    *,
    range: Sequence[float] | None = None,  # noqa: A002 - torch's name
    weight: Tensor | None = None,
    density: bool = False,
) -> tuple[Tensor, Tensor]:
    """Counts in bins of equal width, and the borders of these."""
    edges = _edges(self.reshape(-1), bins, range)
    return _histogram_of_bins(self, edges, weight=weight, density=density)


def _edges(values: Tensor, bins: int, limits: Sequence[float] | None) -> Tensor:
    """Borders between a least and a largest; where both are one, half a unit to either side."""
    if limits is not None:
        low, high = float(limits[0]), float(limits[1])
        if low == high:
            low, high = low - 0.5, high + 0.5
        return torch.linspace(low, high, bins + 1, dtype=values.dtype)
    low, high = values.amin(), values.amax()
    same = low == high
    low, high = torch.where(same, low - 0.5, low), torch.where(same, high + 0.5, high)
    # As torch's linspace does: from both ends to the middle.
    step = (high - low) / bins
    place = torch.arange(bins + 1, dtype=values.dtype)
    return torch.where(place < (bins + 1) // 2, low + step * place, high - step * (bins - place))


def _histogram_of_bins(
    self: Tensor, bins: Tensor, *, weight: Tensor | None = None, density: bool = False
) -> tuple[Tensor, Tensor]:
    """The last bin takes its upper border; what lies outside counts nowhere."""
    values, count = self.reshape(-1), bins.shape[0] - 1
    place = torch.searchsorted(bins, values, right=True) - 1
    place = torch.where(values == bins[-1], count - 1, place)
    inside = (values >= bins[0]) & (values <= bins[-1])
    worth = torch.ones_like(values) if weight is None else weight.reshape(-1)
    worth = torch.where(inside, worth, 0.0)
    counts = torch.zeros(count, dtype=self.dtype)
    counts = counts.scatter_add(0, place.clamp(0, count - 1), worth)
    if density:
        counts = counts / (counts.sum() * bins.diff())
    return counts, bins.clone()


def count(self: Tensor, weights: Tensor | None = None, minlength: int = 0) -> Tensor:
    """How often each whole number occurs; as many counts as the largest, or the caller, wants."""
    known = weights is None or weights.dtype == torch.float32
    kind = torch.float64 if not known else torch.int64 if weights is None else torch.float32
    if not self.numel():
        return torch.zeros(minlength, dtype=kind)
    length: Any = torch.clamp(self.max() + 1, min=minlength).item()
    torch._check(length >= 1)  # pyright: ignore[reportPrivateUsage] - a bound, for the exporter
    worth = torch.ones(self.shape, dtype=kind) if weights is None else weights.to(kind)
    return torch.zeros(length, dtype=kind).scatter_add(0, self.to(torch.int64), worth)


DECOMPOSITIONS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        "histogram.bin_ct": _histogram,
        "histogram.bins_tensor": _histogram_of_bins,
        "segment_reduce.default": _segments,
    }
)
TRACEABLE: Mapping[Callable[..., Any], Callable[..., Any]] = MappingProxyType(
    {
        torch.bincount: count,
        torch.Tensor.bincount: count,
        torch.corrcoef: correlation,
        torch.Tensor.corrcoef: correlation,
        torch.cov: covariance,
        torch.Tensor.cov: covariance,
        torch.linalg.lstsq: least_squares,
    }
)
