"""Quantise the operands of products to 8 bits, by calibrated ranges."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from hybridc.compiler import plugin
from hybridc.compiler.errors import PassError, hint
from hybridc.compiler.interfaces import Context, IRModule, Pass
from hybridc.compiler.ir.rewrite import Graph, calls, graph_of, operator, tidy, updated
from hybridc.compiler.model import Array
from hybridc.compiler.quantization import activations, products
from hybridc.compiler.quantization.activations import Calibration, Observed
from hybridc.compiler.quantization.observers import OBSERVERS, affine, minmax
from hybridc.compiler.quantization.products import Product
from hybridc.compiler.quantization.sensitivity import Lowered, Operator
from hybridc.passes import _rounding, _smooth_quant, _stored_tensors, _switched_graph
from hybridc.passes._quantized_graph import QuantizedGraph
from hybridc.passes._rounding import Storage
from hybridc.passes._stored_tensors import Site


@dataclass(frozen=True)
class _Sampled:
    """The sites of a graph, and what calibration saw of each."""

    graph: Graph
    sites: Sequence[Site]
    observed: Observed

    def place(self, product: Product) -> int:
        """The number of the site that a product reads."""
        variable = _stored_tensors.origin(product, self.graph)
        return next(i for i, site in enumerate(self.sites) if site.variable.same_as(variable))


@dataclass(frozen=True)
class _Ranges:
    """How the tensor of each site is stored, and what that does to products, by their names.

    `of` is how what they read is stored, `shifts` how far the mean of each channel moves, `losses`
    the share of the output's energy that is lost.  `effects` has a place for what is measured on
    the model's output.
    """

    storages: tuple[Storage, ...]
    of: Mapping[str, Storage]
    shifts: Mapping[str, Array]
    losses: Mapping[str, float]
    effects: dict[int, float] = field(default_factory=dict[int, float])


@dataclass(frozen=True)
class Quantize(Pass):
    """Quantise the operands of products to 8 bits, by calibrated ranges.

    Convolutions and matrix products with constant weights then read dequantised operands, which
    `integer-arithmetic` turns into products of integers.  Weights are symmetric int8 with a scale
    per output channel; activations are uint8 with one scale and zero point per tensor, by `method`:
    minmax, percentile, entropy or mse.  Rows of matrix products keep their whole range, since the
    few largest elements matter most; `alpha` is about how far their outliers are moved into the
    weights, whatever loses least on held-out samples (0: not at all, and ranges are by `method`).
    `correct` compensates the shift of each channel's mean.  `residuals` keeps whole feature maps,
    residual sums included, in 8 bits.  `keep` names products to leave alone, separated by commas.

    Without calibration data ranges are those of random inputs, all of them, and nothing is
    corrected.
    """

    method: str = "mse"
    alpha: float = 0.5
    correct: bool = True
    residuals: bool = True
    keep: str = ""

    def requires(self, module: IRModule) -> None:
        """The options are those that there are, and nothing is quantised yet."""
        if self.method not in OBSERVERS:
            raise PassError(f"method {self.method!r} is not known; {hint(self.method, OBSERVERS)}")
        if not 0 <= self.alpha <= 1:
            raise PassError(f"alpha is between 0 and 1, got {self.alpha}")
        if calls(module, "quantize", "dequantize"):
            raise PassError("the model is quantised already")

    def apply(self, module: IRModule, context: Context) -> IRModule:
        """Rewrite `main`."""
        function = module["main"]
        graph = graph_of(function)
        found = products.find(function, graph)
        kept = self._kept(found)
        sites = _stored_tensors.find(function, graph, found, self.residuals)
        chosen = _stored_tensors.active(sites, kept)
        if not chosen:
            return module
        calibration: Calibration = context.calibration or activations.of_nothing(module)
        observed = calibration.observe(module, [site.variable for site in sites], found)
        ranges = self._ranges(_Sampled(graph, sites, observed), found, given=calibration.given)
        inside = [product for product in found if product.name not in kept]
        rewriter = QuantizedGraph(
            function,
            graph,
            {product.variable: product for product in inside},
            {site.variable: site for site in chosen},
            {site.variable: ranges.storages[sites.index(site)] for site in chosen},
            {product.variable: ranges.shifts[product.name] for product in inside},
            frozenset(product.variable for product in found if product.name in kept),
        )
        context.notes.append(_told(found, kept, calibration.told))
        context.lowered |= Counter(operator(product.call) for product in inside)
        context.sensitive = _lowered(module, found, kept, ranges, calibration)
        return tidy(updated(module, {module.get_global_var("main"): rewriter.rewritten()}))

    def _ranges(self, sampled: _Sampled, found: Sequence[Product], *, given: bool) -> _Ranges:
        """How tensors are stored and what products lose by it; found once for all that is kept."""
        known, text = sampled.observed.derived, plugin.text(replace(self, keep=""))
        if text not in known:
            storages = [self._storage(i, sampled, given) for i in range(len(sampled.sites))]
            places = [sampled.place(product) for product in found]
            pairs = [(p, storages[place]) for p, place in zip(found, places, strict=True)]
            rows = sampled.observed.rows
            corrected = self.correct and given
            known[text] = _Ranges(
                tuple(storages),
                {p.name: storage for p, storage in pairs},
                {
                    p.name: _rounding.shifts(p, rows[p.name], storage)
                    if corrected
                    else np.zeros(1, np.float32)
                    for p, storage in pairs
                },
                {p.name: _rounding.loss(p, rows[p.name], storage) for p, storage in pairs},
            )
        ranges: _Ranges = known[text]
        return ranges

    def _storage(self, index: int, sampled: _Sampled, given: bool) -> Storage:
        site, seen = sampled.sites[index], sampled.observed.tensors[index]
        if not given:
            return Storage(*affine(*minmax(seen.histogram)))
        if not site.direct or self.alpha == 0:
            return Storage(*affine(*OBSERVERS[self.method](seen.histogram)))
        return _smooth_quant.stored(site, seen, sampled.observed.halves, self.alpha)

    def _kept(self, found: Sequence[Product]) -> frozenset[str]:
        names = [product.name for product in found]
        kept = [name for name in self.keep.split(",") if name]
        if unknown := [name for name in kept if name not in names]:
            raise PassError(f"no product is named {unknown[0]!r}; {hint(unknown[0], names)}")
        return frozenset(kept)


def _lowered(
    module: IRModule,
    found: Sequence[Product],
    kept: frozenset[str],
    ranges: _Ranges,
    calibration: Calibration,
) -> Lowered:
    """What each product loses in 8 bits, and the graph that tries each alone."""
    operators = tuple(
        Operator(
            name=p.name,
            described=p.describe(),
            macs=p.macs,
            depth=p.weight.shape[1 - p.channel],
            weights=p.weight.size,
            moved=_switched_graph.moved(p),
            error=ranges.losses[p.name],
            lowered=p.name not in kept,
        )
        for p in found
    )
    return Lowered(
        operators,
        lambda: _switched_graph.switched(module, found, ranges.of, ranges.shifts),
        calibration.feeds,
        ranges.effects,
    )


def _told(found: Sequence[Product], kept: frozenset[str], data: str) -> str:
    """The note for the report."""
    stay = ", ".join(product.describe() for product in found if product.name in kept)
    count = len(found) - len(kept)
    left = f"; as they were: {stay}" if stay else ""
    return f"{count} of {len(found)} products in int8, ranges from {data}{left}"
