"""Move outliers of activations into weights (SmoothQuant), as far as unseen samples gain by it."""

from collections.abc import Mapping

import numpy as np

from hybridc.compiler.model import Array
from hybridc.compiler.quantization.activations import Extremes, Observation
from hybridc.compiler.quantization.observers import affine
from hybridc.compiler.quantization.products import Product
from hybridc.passes import _rounding
from hybridc.passes._rounding import Storage
from hybridc.passes._stored_tensors import Site

# How far outliers are moved besides: a share of `alpha`, and shares of the rest up to 1.
_LESS, _MORE = 0.6, (0.0, 0.3, 0.5, 0.7)
# Bounds of what moves between activations and weights; beyond, one of them is as good as zero.
_FACTORS = (1e-4, 1e4)
# Rows of each half of the samples on which storages are compared.
_TRIED = 64

# Sampled rows of products by name: of one half of the samples, and of the other.
Halves = Mapping[str, tuple[Array, Array]]


def stored(site: Site, seen: Observation, halves: Halves, alpha: float) -> Storage:
    """The whole range of a site, with outliers moved as far as its products lose least by.

    How far is judged by what one half of the samples loses where the other gave ranges and factors:
    with few rows those of each column fit the rows that were seen far better than any others.
    Where only one half has samples nothing is moved.
    """
    steps = (_LESS * alpha, *(alpha + (1 - alpha) * more for more in _MORE))
    some = {p.name: tuple(_some(rows) for rows in halves[p.name]) for p in site.products}
    if any(not rows.size for rows in some[site.products[0].name]):
        return _moved(site, seen.whole, None)

    def lost(step: float | None) -> float:
        return sum(
            _rounding.loss(product, rows, storage)
            for half, storage in enumerate(_moved(site, each, step) for each in seen.halves)
            for product, rows in ((p, some[p.name][1 - half]) for p in site.products)
        )

    return _moved(site, seen.whole, min((None, *steps), key=lost))


def _some(rows: Array) -> Array:
    return rows[:, :: max(1, rows.shape[1] // _TRIED)]


def _moved(site: Site, seen: Extremes, alpha: float | None) -> Storage:
    """The storage of a range with outliers moved by `alpha`, or not at all."""
    if alpha is None:
        return Storage(*affine(float(seen.low.min()), float(seen.high.max())))
    factors = factored(np.maximum(np.abs(seen.low), np.abs(seen.high)), site.products, alpha)
    low, high = float((seen.low / factors).min()), float((seen.high / factors).max())
    return Storage(*affine(low, high), factors)


def factored(largest: Array, products: tuple[Product, ...], alpha: float) -> Array:
    """Factors that move what is hard to quantise from activations to weights, by input channel.

    `max|X_j|^alpha / max|W_j|^(1 - alpha)`: G. Xiao et al.: SmoothQuant (2022), equation 4.
    `largest` holds `max|X_j|`.
    """
    weights = np.max([np.abs(product.weight).max(1) for product in products], axis=0)
    least = np.finfo(np.float32).tiny
    factors = np.maximum(largest, least) ** alpha / np.maximum(weights, least) ** (1 - alpha)
    factors[(largest == 0) | (weights == 0)] = 1.0
    centred = factors / np.exp(np.log(factors).mean())
    clipped: Array = np.clip(centred, *_FACTORS).astype(np.float32)
    return clipped
