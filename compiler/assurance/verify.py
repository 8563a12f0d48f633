"""Compare what was computed with what should have been.

Tolerances by dtype (`TOLERANCES`), for |got - wanted| <= atol + rtol |wanted|.  float32 is the
project's promise; float64 keeps more, float16 and bfloat16 are held to eight units in the last
place, since every operator rounds.  Absolute ones are of numbers near 1, and less of smaller ones.
Integers and booleans must be equal.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from hybridc.compiler.assurance.accuracy import METRICS
from hybridc.compiler.assurance.difference import Difference, Floats
from hybridc.compiler.assurance.reduced import Reduced, finer, reduced
from hybridc.compiler.errors import WrongAnswerError
from hybridc.compiler.model import Array, TensorSpec
from hybridc.compiler.runtime import carriers

# dtype: (rtol, atol)
TOLERANCES: Mapping[str, tuple[float, float]] = {
    "float64": (1e-5, 1e-7),
    "float32": (1e-3, 1e-4),
    "float16": (8 * 2**-10, 8 * 2**-10),
    "bfloat16": (8 * 2**-7, 8 * 2**-7),
}

# Where all elements of a float output are small, so is the absolute tolerance, down to this share:
# probabilities of 50,000 words are a fifth of 1e-4 each, and any others would do.  Below it stands
# what rounding leaves of numbers near 1 that cancel.
_LEAST_SHARE = 1e-2


class How(NamedTuple):
    """What a comparison is held to.

    `rtol` and `atol` take the place of the tolerances, unless they are None; `precision` is what
    the model is computed in, and `products` is how many of it were lowered to that.
    """

    rtol: float | None = None
    atol: float | None = None
    precision: str = "fp32"
    products: int = 0

    @property
    def reduced(self) -> Reduced | None:
        """What is held of a model in less than its own precision; None of one in that."""
        return reduced(self.precision, self.products)


USUAL = How()


@dataclass(frozen=True)
class Comparison:
    """How far one output is from what was wanted.

    `max_rel` looks at elements beyond `atol` only; `cosine` and `snr_db` (decibels) leave out
    pairs of equal NaN or infinity; `top1` is the share of rows (last axis) whose largest element
    is in the same place.  `first` is the index of the first of the `differing` elements, `wanted`
    and `got` its two values.  `condition` is the most that an element was allowed beside its
    tolerance, since the reference itself moves so far under rounded inputs or weights, and
    `excused` how many elements may be any others, since it chooses others itself (conditioning.py);
    `reordered` is how many rows are others, as in the reference itself (reordering.py).
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
    condition: float = 0.0
    excused: int = 0
    reordered: int = 0
    differing: int = 0
    first: tuple[int, ...] | None = None
    wanted: float | None = None
    got: float | None = None

    @property
    def ok(self) -> bool:
        """Whether every element is within the tolerance, and all of them together."""
        return self.differing == 0 and self.cosine >= self.min_cosine

    @property
    def lenient(self) -> bool:
        """Whether more was allowed than the tolerance."""
        return bool(self.condition or self.excused or self.reordered)

    def told(self) -> str:
        """For the report, where the tolerance alone was too narrow."""
        if self.excused:
            return (
                f"output {self.output} was allowed {self.excused} elements beyond its tolerance: "
                "the reference itself chooses others when the inputs are off as outputs may be"
            )
        if self.reordered:
            return (
                f"output {self.output} has {self.reordered} rows that stand elsewhere, as they do "
                "in the reference itself when inputs or weights change by some roundings"
            )
        return (
            f"output {self.output} was allowed up to {self.condition:.3g} beside its tolerance: "
            "there the reference itself moves when inputs or weights change by one rounding"
        )

    def describe(self) -> dict[str, Any]:
        """The comparison as JSON data; what is not finite is None."""
        shown = {name: _finite(value) for name, value in vars(self).items()}
        return {**shown, "shape": list(self.shape), "ok": self.ok}


def compare(
    name: str, wanted: Array, got: Array, how: How = USUAL, slack: Floats | None = None
) -> Comparison:
    """Compare an output with what was wanted, by default to the tolerance of its dtype.

    `slack` is what each element may be off beside that.  Of a model in less than its own precision
    floats, and integers of 8 or 16 bits of a quantised one, are held to `How.reduced` instead.

    NaN equals NaN and an infinity equals the same infinity.  Raises WrongAnswerError where shape
    or dtype differ.
    """
    if wanted.shape != got.shape or wanted.dtype != got.dtype:
        expected, given = _describe(name, wanted), _describe(name, got)
        raise WrongAnswerError(f"output wanted: {expected}, computed: {given}")
    pair = Difference(wanted[np.newaxis], got[np.newaxis])
    if how.precision == "int8" and wanted.dtype.kind in "iu" and wanted.dtype.itemsize <= 2:
        pair.exact = False  # a quantised tensor
    if pair.exact and slack is not None:
        # Integers may be so large that others are the same number in double precision.
        pair.exact, slack = False, np.where(slack > 0, slack, -1.0)
    lower = None if pair.exact else how.reduced
    usual = (0.0, lower.share * pair.largest) if lower else tolerance(wanted)
    relative = usual[0] if how.rtol is None else how.rtol
    absolute = usual[1] if how.atol is None else how.atol
    allowed = absolute if slack is None else absolute + slack
    differing = np.flatnonzero(~pair.within(relative, allowed))
    return Comparison(
        output=name,
        dtype=str(wanted.dtype),
        shape=wanted.shape,
        rtol=relative,
        atol=absolute,
        max_abs=pair.max_abs,
        max_rel=pair.max_rel(absolute),
        cosine=METRICS["cosine"].of(pair).value,
        snr_db=METRICS["snr"].of(pair).value,
        top1=METRICS["top1"].of(pair).value,
        min_cosine=lower.cosine if lower else -1.0,
        condition=0.0 if slack is None else float(slack.max(initial=0.0)),
        **_first(differing, pair, wanted.shape),
    )


def _first(differing: NDArray[np.intp], pair: Difference, shape: tuple[int, ...]) -> dict[str, Any]:
    """How many elements differ, where the first of them stands, and its two values."""
    if not differing.size:
        return {}
    first = int(differing[0])
    return {
        "differing": int(differing.size),
        "first": tuple(map(int, np.unravel_index(first, shape))),
        "wanted": float(pair.wanted.flat[first]),
        "got": float(pair.got.flat[first]),
    }


def check(comparisons: Sequence[Comparison], precision: str = "fp32") -> None:
    """Raise WrongAnswerError for the first output that is wrong, naming its first wrong element.

    What becomes infinite or no number in fp16 alone is said to be beyond its range.
    """
    wrong = [comparison for comparison in comparisons if not comparison.ok]
    if not wrong:
        return
    bad = wrong[0]
    if "fp16" in precision and math.isinf(bad.max_abs):
        raise WrongAnswerError(
            f"output {bad.output!r} is infinite or NaN where the reference is not: an "
            "activation is beyond 65504, where fp16 ends; dtype "
            f"{precision.replace('fp16', 'bf16')} has the range of fp32"
        )
    untold = reduced(precision) is not None and bad.rtol == bad.atol == bad.wanted == 0
    if untold and bad.got is not None and math.isfinite(bad.max_abs):
        raise WrongAnswerError(
            f"output {bad.output!r} of the reference is zero throughout, which does not tell how "
            f"near to it {precision} comes ({bad.got:.3g}): give --calibration data on which it "
            "is not"
        )
    others = f"; {len(wrong) - 1} more outputs are wrong" if len(wrong) > 1 else ""
    if keeps := finer(precision):
        others += f"; {precision} may be too coarse for this model: {keeps} keeps more"
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


def tolerance(wanted: Array) -> tuple[float, float]:
    """Relative and absolute, of an output that should be this."""
    dtype = np.dtype(carriers.carrier(str(wanted.dtype)))
    if dtype.kind in "biu":
        return 0.0, 0.0
    largest = Difference(wanted, wanted).largest
    if (known := TOLERANCES.get(str(dtype))) is None:
        known = (8 * float(ml_dtypes.finfo(dtype).eps),) * 2
    relative, absolute = known
    return relative, absolute * min(1.0, max(largest, _LEAST_SHARE))


def _describe(name: str, array: Array) -> str:
    return TensorSpec(name, array.shape, str(array.dtype)).describe()


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
