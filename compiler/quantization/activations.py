"""What the tensors of a graph hold on calibration data: ranges, histograms, samples of products.

Feeds are run one after another, and of each only what is counted is kept: memory does not grow
with their number.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tvm_ffi

from hybridc.compiler.assurance import calibration
from hybridc.compiler.errors import InputError
from hybridc.compiler.interfaces import IRModule
from hybridc.compiler.ir.rewrite import Expr, shape
from hybridc.compiler.model import Array, TensorSpec
from hybridc.compiler.quantization import observers
from hybridc.compiler.quantization.observers import Histogram
from hybridc.compiler.quantization.products import Product
from hybridc.compiler.quantization.taps import Taps

# Samples of the user's data that are looked at; ranges change little with more.
MOST = 300
# Random inputs, where there are no data.
RANDOM = 8
# Rows that are kept of what a product reads, and numbers in all of them: 4 MiB each.
_ROWS, _NUMBERS = 512, 2**20


@dataclass(frozen=True)
class Extremes:
    """The least and the largest element of a tensor by its last axis; infinite if none was."""

    low: Array
    high: Array

    @classmethod
    def of(cls, array: Array) -> "Extremes":
        """Those of one sample."""
        flat = array.reshape(-1, *(array.shape[-1:] or (1,)))
        return cls(flat.min(0), flat.max(0))

    @classmethod
    def of_none(cls, extents: tuple[int, ...]) -> "Extremes":
        """Those of a tensor of these extents that was not seen yet."""
        columns = extents[-1:] or (1,)
        return cls(np.full(columns, np.inf), np.full(columns, -np.inf))

    def __or__(self, other: "Extremes") -> "Extremes":
        """Those of what either has seen."""
        return Extremes(np.minimum(self.low, other.low), np.maximum(self.high, other.high))

    @property
    def finite(self) -> bool:
        """Whether no NaN and no infinity was seen."""
        return bool(np.isfinite(self.low).all() and np.isfinite(self.high).all())


@dataclass(frozen=True)
class Observation:
    """One tensor: the histogram of its elements, and the extremes of both halves of the samples."""

    histogram: Histogram
    halves: tuple[Extremes, Extremes]

    @property
    def whole(self) -> Extremes:
        """The least and the largest element by the last axis, of all samples."""
        return self.halves[0] | self.halves[1]


@dataclass(frozen=True)
class Observed:
    """What was found of tensors, and for each product by name the rows that were sampled.

    Samples belong to one half or the other in turn: what is chosen by what one half lost, the other
    had no part in.  `derived` is a place for what a pass computes from it, by the pass's options.
    """

    tensors: tuple[Observation, ...]
    halves: dict[str, tuple[Array, Array]]
    derived: dict[str, Any] = field(default_factory=dict[str, Any])

    @property
    def rows(self) -> dict[str, Array]:
        """The rows of both halves."""
        return {name: np.concatenate(parts, 1) for name, parts in self.halves.items()}


@dataclass
class Calibration:
    """Runs graphs on calibration data, each once however often it is asked for.

    `feeds` hold arrays in the order of the parameters; `given` says whether they are the user's
    own, `told` what they are.
    """

    feeds: Sequence[Sequence[Array]]
    given: bool
    told: str
    seed: int = 0
    _found: dict[int, Observed] = field(default_factory=dict[int, Observed])

    def observe(
        self, module: IRModule, variables: Sequence[Expr], products: Sequence[Product]
    ) -> Observed:
        """Look at variables of `main`, which hold float32, and at what products read.

        Raises InputError if one of them holds NaN or an infinity.
        """
        key = tvm_ffi.structural_hash(module["main"], map_free_vars=True)
        if key not in self._found:
            self._found[key] = self._observed(module, variables, products)
        return self._found[key]

    def _observed(
        self, module: IRModule, variables: Sequence[Expr], products: Sequence[Product]
    ) -> Observed:
        read = list(dict.fromkeys([*variables, *(product.data for product in products)]))
        taps = Taps(module, read)
        rows: dict[str, list[Array]] = {product.name: [] for product in products}
        halves = [[Extremes.of_none(shape(each)) for each in read] for _ in range(2)]
        draw = np.random.default_rng(self.seed)
        for number, feed in enumerate(self.feeds):
            arrays, half = taps(feed), number % 2
            halves[half] = [e | Extremes.of(a) for e, a in zip(halves[half], arrays, strict=True)]
            for product in products:
                held = arrays[read.index(product.data)]
                rows[product.name].append(product.rows(held, self._share(product), draw))
        pairs = list(zip(*halves, strict=True))
        whole = [one | other for one, other in pairs]
        if not all(extremes.finite for extremes in whole):
            raise InputError(f"the model computes NaN or infinity on {self.told}")
        found = [observers.empty(float(e.low.min()), float(e.high.max())) for e in whole]
        for feed in self.feeds:
            arrays = taps(feed)
            found = [h.add(array) for h, array in zip(found, arrays, strict=True)]
        tensors = [Observation(h, pair) for h, pair in zip(found, pairs, strict=True)]
        sampled = {name: (_joined(of[::2]), _joined(of[1::2], of)) for name, of in rows.items()}
        return Observed(tuple(tensors[: len(variables)]), sampled)

    def _share(self, product: Product) -> int:
        """Rows to take of one feed."""
        depth = product.weight.size // product.weight.shape[product.channel] * product.groups
        count = min(_ROWS, max(1, _NUMBERS // depth))
        return -int(-count // len(self.feeds))


def _joined(parts: Sequence[Array], like: Sequence[Array] = ()) -> Array:
    """Rows of several samples; of none, no rows, of such as `like` holds."""
    return np.concatenate(parts, 1) if parts else like[0][:, :0]


def of_feeds(
    feeds: calibration.Feeds, inputs: Sequence[TensorSpec], told: str, *, given: bool, seed: int = 0
) -> Calibration:
    """Calibrate on feeds by input name."""
    ordered = [[feed[spec.name] for spec in inputs] for feed in feeds[:MOST]]
    return Calibration(ordered, given, told, seed)


def of_nothing(module: IRModule) -> Calibration:
    """Calibrate on random inputs for the parameters of `main`."""
    params: list[Any] = list(module["main"].params)
    specs = tuple(TensorSpec(f"x{i}", shape(p), str(p.ty.dtype)) for i, p in enumerate(params))
    return of_feeds(random_feeds(specs, 0), specs, "random inputs", given=False)


def random_feeds(inputs: tuple[TensorSpec, ...], seed: int) -> calibration.Feeds:
    """Several random feeds; those of one seed are never those of another."""
    seeds = np.random.SeedSequence(seed).generate_state(RANDOM)
    return [feed for each in seeds for feed in calibration.random_feeds(inputs, int(each))]
