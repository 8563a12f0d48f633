"""Sizes that stay open until a model is called: their names, bounds, and which ones to try.

A shape is a tuple of sizes, and a size is a number or a `Dim`.  As text, sizes are joined by `x`
(or by commas): `?x3x224x224`, `batch,128`, `1..64x3x8x8`, `batch:1..64@8x10`, `?%32`.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hybridc.compiler.errors import InputError
from hybridc.compiler.text.sizes import expected_size

UNNAMED = "?"
# What is measured where nobody says a size, and nothing above bounds it.
_USUAL = 8
# Kernels index with 32 bits, and a bound beyond that bounds nothing.
_MOST = 2**31 - 1
_DIGITS = len(str(_MOST))

_SIZE = re.compile(
    r"(?:(?P<fixed>\d+)|(?:(?P<name>\?|[A-Za-z_][A-Za-z0-9_]*)(?=$|[:%@]):?)?"
    r"(?:(?P<low>\d+)\.\.(?P<high>\d*))?(?:%(?P<step>\d+))?(?:@(?P<usual>\d+))?)$"
)

_SUM = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\+(?:[A-Za-z_][A-Za-z0-9_]*|\d+))+$")


class TooLargeError(InputError):
    """A size beyond what kernels index; the text that says it is of the right form."""


@dataclass(frozen=True)
class Dim:
    """An open size between `low` and `high` (both included; None: no bound), a multiple of `step`.

    Dims of one name are one size.  `usual` is the size to measure at, None if nobody said one.
    The size of an output may be an expression, which is its name.  One that others tell is the sum
    of the sizes named in `parts`, and of `plus`.
    """

    name: str
    low: int = 1
    high: int | None = None
    usual: int | None = None
    step: int = 1
    parts: tuple[str, ...] = ()
    plus: int = 0

    def __str__(self) -> str:
        return self.name

    @property
    def bounded(self) -> bool:
        """Whether it has bounds of its own, or a step."""
        return self.low != 1 or self.high is not None or self.step != 1

    @property
    def nominal(self) -> int:
        """The size that stands for all where one has to: to measure at, to plan memory for."""
        if self.usual is not None:
            return self.usual
        return self.above(max(self.low, _USUAL)) if self.high is None else self.high

    def above(self, size: int) -> int:
        """The least multiple of the step that is not below a size."""
        return -(-size // self.step) * self.step

    def admits(self, size: int) -> bool:
        """Whether a size lies within the bounds, and is such a multiple."""
        within = self.low <= size and (self.high is None or size <= self.high)
        return within and size % self.step == 0

    def at(self, sizes: "Sizes") -> int:
        """The size where others, or all, are so large."""
        return (
            sum(sizes[part] for part in self.parts) + self.plus if self.parts else sizes[self.name]
        )

    def sum_of_parts(self) -> str:
        """`past + length + 1`."""
        return " + ".join([*self.parts, *([str(self.plus)] if self.plus else [])])

    def describe(self) -> str:
        """`batch`, `batch:1..64`, `h:32..%32`; of a size without a name `?`, `1..64`."""
        if not self.bounded:
            return self.name
        bounds = f"{self.low}..{'' if self.high is None else self.high}"
        bounds += "" if self.step == 1 else f"%{self.step}"
        return bounds if self.name == UNNAMED else f"{self.name}:{bounds}"

    def text(self) -> str:
        """As `parse` reads it, with the size to measure at."""
        return self.describe() + ("" if self.usual is None else f"@{self.usual}")


Size = int | Dim
Shape = tuple[Size, ...]
Sizes = Mapping[str, int]


def parse(text: str) -> Size:
    """Read one size: `3`, `?`, `batch`, `1..64`, `batch:4..`, `?%32`, `?@8`, `batch:1..64%2@8`.

    `past+length` is a sum of other sizes, `%` says of what it is a multiple, and `@` gives the size
    to measure at.  Raises InputError for other text.
    """
    if (found := sum_of(text)) is not None:
        return found
    match = _SIZE.match(text)
    if match is None or not text:
        raise InputError(f"{text!r} is not a size: {expected_size(text)}")
    if match["fixed"] is not None:
        return _number(match["fixed"])
    low = _number(match["low"] or "1")
    high = _number(match["high"]) if match["high"] else None
    usual = _number(match["usual"]) if match["usual"] else None
    return checked(Dim(match["name"] or UNNAMED, low, high, usual, _number(match["step"] or "1")))


def _number(digits: str) -> int:
    """Raises InputError beyond what kernels index; Python itself reads no thousands of digits."""
    if len(digits.lstrip("0")) > _DIGITS or int(digits) > _MOST:
        shown = digits if len(digits) <= 2 * _DIGITS else f"{digits[:_DIGITS]}..."
        raise TooLargeError(f"{shown} is not a valid size: the most is {_MOST}")
    return int(digits)


def sum_of(text: str) -> Dim | None:
    """The size that `past + length`, or `past+1`, is the sum of; None for other text."""
    joined = text.replace(" ", "")
    if not _SUM.match(joined):
        return None
    parts = joined.split("+")
    plus = sum(_number(part) for part in parts if part.isdigit())
    return Dim(text, parts=tuple(part for part in parts if not part.isdigit()), plus=plus)


def checked(dim: Dim) -> Dim:
    """The dim, its bounds multiples of its step.  Raises InputError if they are not valid."""
    if dim.low < 0 or dim.step < 1:
        raise InputError(f"{dim.describe()}: what follows % is at least 1")
    if dim.high is not None and not dim.low <= dim.high <= _MOST:
        raise InputError(f"{dim.describe()}: the upper bound is below the lower, or beyond 2^31")
    high = None if dim.high is None else dim.high // dim.step * dim.step
    whole = replace(dim, low=dim.above(dim.low), high=high)
    if whole.low > _MOST or (high is not None and high < whole.low):
        raise InputError(f"{dim.describe()}: no multiple of {dim.step} lies within the bounds")
    if dim.usual is not None and not dim.admits(dim.usual):
        raise InputError(f"{dim.text()}: the size to measure at is not within the bounds")
    return whole


def parse_shape(text: str) -> Shape:
    """Read `1x3x?x224`; a scalar is `scalar`.  Raises InputError for other text.

    Names that hold an `x` need commas between sizes.
    """
    if text == "scalar":
        return ()
    if re.fullmatch(r"\d+(?:[x,]\d+)*", text):
        return tuple(map(_number, re.split("[x,]", text)))
    return tuple(map(parse, text.split("," if "," in text else "x")))


def shape(value: Any) -> Shape:
    """A shape as a user writes it in Python: text, a number, or one number or text for each axis.

    None is an open size, as `?`.  Raises InputError for anything else.
    """
    if isinstance(value, str):
        return parse_shape(value)
    axes: Iterable[Any] = value if isinstance(value, list | tuple) else (value,)
    return tuple(map(_size, axes))


def _size(value: Any) -> Size:
    if isinstance(value, Dim):
        return checked(value)
    if value is None or isinstance(value, str):
        return parse(value or UNNAMED)
    try:
        size = int(value.__index__())
    except AttributeError:
        raise InputError(f"{value!r} is not a size: expected a number or text") from None
    if not 0 <= size <= _MOST:
        raise InputError(f"{size} is not a valid size: the most is {_MOST}")
    return size


def write(sizes: Sequence[Size | None]) -> str:
    """`batchx3x224x224`, as `parse_shape` reads it; a scalar is `scalar`."""
    texts = [s.describe() if isinstance(s, Dim) else str(s) for s in sizes]
    return ("," if any("x" in text for text in texts) else "x").join(texts) or "scalar"


def is_open(sizes: Iterable[object]) -> bool:
    """Whether a shape holds a size that is not known."""
    return any(isinstance(size, Dim) for size in sizes)


def fixed(sizes: Iterable[Size], at: Sizes) -> tuple[int, ...]:
    """A shape of numbers, its open sizes by name."""
    return tuple(size.at(at) if isinstance(size, Dim) else size for size in sizes)


def fits(sizes: Sequence[Size], extents: Sequence[int]) -> bool:
    """Whether a tensor's shape is of this form, its open sizes within their bounds."""
    return len(sizes) == len(extents) and all(
        size.admits(n) if isinstance(size, Dim) else size == n
        for size, n in zip(sizes, extents, strict=True)
    )


def bind(shapes: Mapping[str, tuple[Sequence[Size], Sequence[int]]]) -> dict[str, int]:
    """The open sizes of a call, from each input's shape and the one given, by input name.

    Raises InputError if two inputs differ on a size that they share, and if one that others tell is
    another.
    """
    sizes: dict[str, int] = {}
    owner: dict[str, str] = {}
    for name, (shape, extents) in shapes.items():
        for size, n in zip(shape, extents, strict=True):
            if not isinstance(size, Dim):
                continue
            if sizes.setdefault(size.name, n) != n:
                raise InputError(
                    f"inputs {owner[size.name]!r} and {name!r} differ in {size.name!r}, which they"
                    f" share: {sizes[size.name]} and {n}"
                )
            owner.setdefault(size.name, name)
    for dim in _dims(shape for shape, _ in shapes.values()):
        if dim.parts and sizes.keys() >= {*dim.parts} and sizes[dim.name] != dim.at(sizes):
            raise InputError(
                f"{dim.name!r} of input {owner[dim.name]!r} is {sizes[dim.name]}, and"
                f" {dim.sum_of_parts()} is {dim.at(sizes)}"
            )
    return sizes


def united(shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """Give all dims of one name the same bounds: those that one of them has.

    Raises InputError if two of them have different ones.
    """
    known: dict[str, Dim] = {}
    for dim in _dims(shapes.values()):
        known[dim.name] = agreed(known.get(dim.name, dim), dim)
    return {
        name: tuple(known[size.name] if isinstance(size, Dim) else size for size in sizes)
        for name, sizes in shapes.items()
    }


def named(shapes: Iterable[Iterable[Size]]) -> dict[str, Dim]:
    """The open sizes of some shapes by name, in order; not those that others tell."""
    return {dim.name: dim for dim in _dims(shapes) if not dim.parts}


def _dims(shapes: Iterable[Iterable[Size]]) -> Iterable[Dim]:
    return (size for sizes in shapes for size in sizes if isinstance(size, Dim))


def agreed(one: Dim, other: Dim) -> Dim:
    """One size of what two places say.  Raises InputError if they contradict each other."""
    usual = one.usual if other.usual is None else other.usual
    bounds = [(dim.low, dim.high, dim.step) for dim in (one, other)]
    if one.bounded and other.bounded and bounds[0] != bounds[1]:
        raise InputError(
            f"{one.describe()} and {other.describe()}: a size can have only one pair of bounds"
        )
    if None not in (one.usual, other.usual) and one.usual != other.usual:
        raise InputError(
            f"{one.text()} and {other.text()}: a size can be measured at only one value"
        )
    return checked(replace(other if other.bounded else one, usual=usual))


def nominal(dims: Mapping[str, Dim]) -> dict[str, int]:
    """The sizes to measure at."""
    return {name: dim.nominal for name, dim in dims.items()}


def certified(certificate: Mapping[str, Any]) -> str:
    """A line of what a certificate says of open sizes; empty if it says nothing."""
    found = certificate.get("sizes")
    if not found:
        return ""
    compared = "; ".join(map(listed, found["compared_at"]))
    line = f"open sizes: measured at {listed(found['measured_at'])}"
    return f"{line}; compared with the reference at {compared}" if compared else line


def listed(sizes: Sizes) -> str:
    """`batch=8, length=16`."""
    return ", ".join(f"{name}={size}" for name, size in sizes.items())
