"""The numbers of static quantisation: weights, migrated scales, shifts that are corrected."""

from dataclasses import dataclass

import numpy as np

from hybridc.compiler.model import Array
from hybridc.compiler.quantization import observers
from hybridc.compiler.quantization.products import Product

_LARGEST = 127
# A shift counts if it is as many standard errors from nothing; less is chance.
_ERRORS = 2.0


@dataclass(frozen=True)
class Storage:
    """How a tensor is stored in 8 bits; by `factors` of its last axis it is divided before."""

    scale: float
    zero: int
    factors: Array | None = None

    def stored(self, values: Array) -> Array:
        """What products read of numbers, those of the last axis divided by its factors."""
        divided = values if self.factors is None else values / self.factors
        return observers.rounded(divided, self.scale, self.zero)


def weights(product: Product, factors: Array | None) -> tuple[Array, Array]:
    """Weights as int8, symmetric, and the scale of each output channel."""
    weight = product.weight if factors is None else product.weight * factors[:, np.newaxis]
    others = tuple(axis for axis in range(weight.ndim) if axis != product.channel)
    largest = np.abs(weight).max(others, keepdims=True)
    scale = np.where(largest > 0, largest / _LARGEST, 1.0).astype(np.float32)
    scale = np.maximum(scale, np.finfo(np.float32).tiny)
    stored = np.clip(np.round(weight / scale), -_LARGEST, _LARGEST).astype(np.int8)
    return stored, scale.reshape(-1)


def back(product: Product, stored: Array, scale: Array) -> Array:
    """The weights that int8 and scales stand for."""
    along = [1] * stored.ndim
    along[product.channel] = -1
    floats: Array = stored.astype(np.float32) * scale.reshape(along)
    return floats


def outputs(product: Product, rows: Array, weight: Array) -> Array:
    """What a product gives for sampled rows: [rows, output channels]."""
    sums = rows @ product.matrix(weight)
    return sums.transpose(1, 0, 2).reshape(rows.shape[1], -1)


def shifts(product: Product, rows: Array, storage: Storage) -> Array:
    """By how much 8 bits move the mean of each output channel, where that is beyond chance.

    M. Nagel, M. van Baalen, T. Blankevoort, M. Welling: Data-free quantization through weight
    equalization and bias correction (2019), section 4.2, with samples in place of assumptions.
    """
    error = errors(product, rows, storage)
    if len(error) < 2:  # of one row all is chance
        return np.zeros(error.shape[1], np.float32)
    mean = error.mean(0)
    chance = error.std(0, ddof=1, dtype=np.float64) / np.sqrt(len(error))
    return np.where(np.abs(mean) > _ERRORS * chance, mean, 0.0).astype(np.float32)


def errors(product: Product, rows: Array, storage: Storage) -> Array:
    """What 8 bits change in the outputs for sampled rows: [rows, output channels]."""
    weight = back(product, *weights(product, storage.factors))
    exact = outputs(product, rows, product.weight)
    rounded: Array = outputs(product, storage.stored(rows), weight) - exact
    return rounded


def loss(product: Product, rows: Array, storage: Storage) -> float:
    """The energy of `errors` as a share of that of the outputs."""
    energy = float(np.square(outputs(product, rows, product.weight), dtype=np.float64).sum())
    noise = float(np.square(errors(product, rows, storage), dtype=np.float64).sum())
    return noise / energy if energy > 0 else 0.0
