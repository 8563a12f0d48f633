"""Compare what was computed with what should have been.

Tolerances by dtype (`TOLERANCES`), for |got - wanted| <= atol + rtol |wanted|.  float32 is the
project's promise; float64 keeps more, float16 and bfloat16 are held to eight units in the last
place, since every operator rounds.  Integers and booleans must be equal.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from hybridc.compiler.errors import InputError, WrongAnswerError, hint
from hybridc.compiler.model import Array, TensorSpec

Floats = NDArray[np.float64]

# dtype: (rtol, atol)
TOLERANCES: Mapping[str, tuple[float, float]] = {
    "float64": (1e-5, 1e-7),
    "float32": (1e-3, 1e-4),
    "float16": (8 * 2**-10, 8 * 2**-10),
    "bfloat16": (8 * 2**-7, 8 * 2**-7),
}


@dataclass(frozen=True)
class Reduced:
    """What is held of a model that computes in less than its own precision.

    An error may be `share` of the output's largest element, whatever the element; the direction
    of the output as a vector is kept to a `cosine`.
    """

    share: float
    cosine: float


# By precision.  bf16 rounds each operand by up to 2^-9; over tens of layers that adds up to about
# 1 % of the largest output, cosine 0.9999 (ResNet-50, BERT).
# A quantised model is compared with its own quantised reference.  Where the two round a tie
# differently one step differs, and so do the steps of the layers behind it: ONNX Runtime with its
# optimisations is up to 9 % of the largest output away from itself without (BERT, cosine 0.998).
REDUCED: Mapping[str, Reduced] = {
    "bf16": Reduced(share=0.05, cosine=0.999),
    "int8": Reduced(share=0.15, cosine=0.99),
}


@dataclass(frozen=True)
class Comparison:
    """How far one output is from what was wanted.

    `max_rel` looks at elements beyond `atol` only; `cosine` and `snr_db` (decibels) leave out
    pairs of equal NaN or infinity; `top1` is the share of rows (last axis) whose largest element
    is in the same place.  `first` is the index of the first of the `differing` elements, `wanted`
    and `got` its two values.
    """

    output: str
    dtype: str
    shape: tuple[int, ...]
    rtol: float
    atol: float
    max_abs: float
    max_rel: float
    cosine: float
    snr_db: float
    top1: float
    min_cosine: float = -1.0
    differing: int = 0
    first: tuple[int, ...] | None = None
    wanted: float | None = None
    got: float | None = None

    @property
    def ok(self) -> bool:
        """Whether every element is within the tolerance, and all of them together."""
        return self.differing == 0 and self.cosine >= self.min_cosine

    def describe(self) -> dict[str, Any]:
        """The comparison as JSON data; what is not finite is None."""
        shown = {name: _finite(value) for name, value in vars(self).items()}
        return {**shown, "shape": list(self.shape), "ok": self.ok}


def compare(  # noqa: PLR0913, PLR0917 - two answers, and all that decides how near they are
    name: str,
    wanted: Array,
    got: Array,
    rtol: float | None = None,
    atol: float | None = None,
    precision: str = "fp32",
) -> Comparison:
    """Compare an output with what was wanted; None takes the tolerance of its dtype.

    Of a model in reduced `precision` floats, and bytes of a quantised one, are held to `REDUCED`
    instead.

    NaN equals NaN and an infinity equals the same infinity.  Raises WrongAnswerError where shape
    or dtype differ.
    """
    if wanted.shape != got.shape or wanted.dtype != got.dtype:
        expected, given = _describe(name, wanted), _describe(name, got)
        raise WrongAnswerError(f"output wanted: {expected}, computed: {given}")
    pair = _Pair(wanted, got)
    if precision == "int8" and wanted.dtype.kind in "iu" and wanted.dtype.itemsize == 1:
        pair.exact = False  # a quantised tensor
    reduced = None if pair.exact else REDUCED.get(precision)
    usual = (0.0, reduced.share * pair.largest) if reduced else _tolerance(wanted.dtype)
    relative, absolute = usual[0] if rtol is None else rtol, usual[1] if atol is None else atol
    differing = np.flatnonzero(~pair.within(relative, absolute))
    where: dict[str, Any] = {}
    if differing.size:
        first = int(differing[0])
        where = {
            "differing": int(differing.size),
            "first": tuple(map(int, np.unravel_index(first, wanted.shape))),
            "wanted": float(pair.wanted.flat[first]),
            "got": float(pair.got.flat[first]),
        }
    return Comparison(
        output=name,
        dtype=str(wanted.dtype),
        shape=wanted.shape,
        rtol=relative,
        atol=absolute,
        max_abs=pair.max_abs,
        max_rel=pair.max_rel(absolute),
        cosine=pair.cosine,
        snr_db=pair.snr,
        top1=pair.top1,
        min_cosine=reduced.cosine if reduced else -1.0,
        **where,
    )


def check(comparisons: Sequence[Comparison]) -> None:
    """Raise WrongAnswerError for the first output that is wrong, naming its first wrong element."""
    wrong = [comparison for comparison in comparisons if not comparison.ok]
    if not wrong:
        return
    bad = wrong[0]
    others = f"; {len(wrong) - 1} more outputs are wrong" if len(wrong) > 1 else ""
    if bad.first is None:
        raise WrongAnswerError(
            f"output {bad.output!r} differs from the reference: cosine {bad.cosine:.6g}, "
            f"wanted at least {bad.min_cosine:g}{others}"
        )
    index = ",".join(map(str, bad.first))
    raise WrongAnswerError(
        f"output {bad.output!r} differs from the reference at [{index}]: "
        f"wanted {bad.wanted:.7g}, got {bad.got:.7g} (rtol {bad.rtol:g}, atol {bad.atol:g}); "
        f"{bad.differing} of {math.prod(bad.shape)} elements differ, "
        f"at most by {bad.max_abs:.3g}{others}"
    )


@dataclass(frozen=True)
class Metric:
    """A measure of accuracy between `low` and `high`; `higher` tells whether more is better."""

    higher: bool
    low: float
    high: float
    of: Callable[["_Pair"], float]


def accuracy(metric: str, wanted: Sequence[Array], got: Sequence[Array]) -> float:
    """The metric of the worst output; outputs are given in the same order on both sides.

    Raises InputError where no metric has the name, WrongAnswerError where shapes or counts differ.
    """
    if metric not in METRICS:
        raise InputError(f"no accuracy metric is named {metric!r}; {hint(metric, METRICS)}")
    if [array.shape for array in wanted] != [array.shape for array in got]:
        raise WrongAnswerError("the outputs differ in number or shape from those wanted")
    kind = METRICS[metric]
    values = [kind.of(_Pair(*pair)) for pair in zip(wanted, got, strict=True)]
    return (min if kind.higher else max)(values, default=1.0 if kind.higher else 0.0)


class _Pair:
    """Two arrays of one shape, in double precision, with the measures of their difference."""

    def __init__(self, wanted: Array, got: Array) -> None:
        self.exact = wanted.dtype.kind in "biu"
        self.same = np.asarray(wanted == got)
        self.wanted: Floats = wanted.astype(np.float64)
        self.got: Floats = got.astype(np.float64)
        self.same |= np.isnan(self.wanted) & np.isnan(self.got)

    @cached_property
    def error(self) -> Floats:
        """The absolute difference; infinite where only one side is finite or a number."""
        with np.errstate(invalid="ignore", over="ignore"):
            difference = np.abs(self.got - self.wanted)
        return np.where(self.same, 0.0, np.where(np.isnan(difference), np.inf, difference))

    def within(self, rtol: float, atol: float) -> NDArray[np.bool_]:
        """Where the two agree."""
        if self.exact:
            return self.same
        with np.errstate(invalid="ignore"):
            # An infinite `wanted` would allow anything; only `same` admits it.
            close = np.isfinite(self.wanted) & (self.error <= atol + rtol * np.abs(self.wanted))
        return self.same | close

    @property
    def largest(self) -> float:
        """The largest finite element that is wanted, by its absolute value."""
        return float(np.abs(self.wanted[np.isfinite(self.wanted)]).max(initial=0.0))

    @property
    def max_abs(self) -> float:
        return float(self.error.max(initial=0.0))

    def max_rel(self, atol: float) -> float:
        """The largest error relative to a wanted value that is larger than `atol`."""
        size = np.abs(self.wanted)
        large = np.isfinite(size) & (size > atol)
        return float((self.error[large] / size[large]).max(initial=0.0))

    @cached_property
    def _scaled(self) -> tuple[Floats, Floats] | None:
        """Both sides where finite, scaled so that squares do not overflow; None if one is broken.

        Broken means that a NaN or an infinity stands on one side only.
        """
        if np.isinf(self.error).any():
            return None
        finite = np.isfinite(self.wanted)
        wanted, got = self.wanted[finite], self.got[finite]
        scale = max(np.abs(wanted).max(initial=0.0), np.abs(got).max(initial=0.0)) or 1.0
        return wanted / scale, got / scale

    @property
    def cosine(self) -> float:
        """Cosine of the angle between the two as vectors; two zero vectors agree."""
        if self._scaled is None:
            return -1.0
        wanted, got = self._scaled
        sizes = float(np.linalg.norm(wanted)), float(np.linalg.norm(got))
        if 0.0 in sizes:
            return 1.0 if sizes[0] == sizes[1] else 0.0
        return float(np.clip((wanted / sizes[0]) @ (got / sizes[1]), -1.0, 1.0))

    @property
    def snr(self) -> float:
        """Signal-to-noise ratio in decibels, 10 log10 (Σ wanted² / Σ (got - wanted)²)."""
        if self._scaled is None:
            return -math.inf
        wanted, got = self._scaled
        signal, noise = float(np.sum(wanted**2)), float(np.sum((got - wanted) ** 2))
        if noise == 0.0:
            return math.inf
        return 10 * math.log10(signal / noise) if signal else -math.inf

    @property
    def top1(self) -> float:
        """The share of rows with the largest element in the same place; without rows, 1."""
        if self.wanted.ndim == 0 or self.wanted.size == 0:
            return 1.0
        return float(np.mean(self.wanted.argmax(-1) == self.got.argmax(-1)))


METRICS: Mapping[str, Metric] = {
    "cosine": Metric(True, -1.0, 1.0, lambda pair: pair.cosine),
    "max-abs": Metric(False, 0.0, math.inf, lambda pair: pair.max_abs),
    "snr": Metric(True, -math.inf, math.inf, lambda pair: pair.snr),
    "top1": Metric(True, 0.0, 1.0, lambda pair: pair.top1),
}


def _tolerance(dtype: np.dtype[Any]) -> tuple[float, float]:
    if dtype.kind in "biu":
        return 0.0, 0.0
    if str(dtype) in TOLERANCES:
        return TOLERANCES[str(dtype)]
    unit = 8 * float(ml_dtypes.finfo(dtype).eps)
    return unit, unit


def _describe(name: str, array: Array) -> str:
    return TensorSpec(name, array.shape, str(array.dtype)).describe()


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
