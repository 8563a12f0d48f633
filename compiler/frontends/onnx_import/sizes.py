"""Arithmetic on sizes that stay open: what exporters write as Shape -> Gather -> Concat -> Reshape.

With fixed shapes folding makes constants of these.  Here the integers are expressions of TIR over
the open sizes, and known as such to what reads a shape; no tensor is computed.
"""

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import tvm
from tvm import relax, sym, tirx
from tvm_ffi import structural_map

from hybridc.compiler.dims import Dim, checked
from hybridc.compiler.errors import InputError
from hybridc.compiler.frontends.onnx_import import size_sums
from hybridc.compiler.ir.rewrite import constant
from hybridc.compiler.model import Array

Expr = Any  # tvm.ir.Expr
# Shapes and indices are no longer than this; what is longer is data.
MOST = 4096
_LARGEST = 2**31 - 1
# Sizes are made multiples of no more: six halvings, one after another.
_LONGEST_STEP = 64
_FLOATS = ("float32", "float64")
_MOST_FLOATS = 64
_FINEST = 64  # steps of a scale by which sizes are multiplied
_TRIED = range(1, 9)  # so many steps tell whether a proof is worth the time


class UnknownError(Exception):
    """A number that does not follow from sizes alone."""


@dataclass(frozen=True, eq=False)
class Fraction:
    """An integer of TIR over a power of two: a float that follows from sizes."""

    over: Any
    under: int


@dataclass(frozen=True)
class Numbers:
    """What is known of a small tensor: `values` holds int, bool or TIR expressions.

    Of a tensor of floats these are whole, and others are fractions.
    """

    values: Array
    dtype: str = "int64"

    @property
    def open(self) -> bool:
        """Whether one of them is known only as the model is called."""
        return any(not isinstance(v, int | np.integer | np.bool_) for v in self.values.flat)


@dataclass
class Sizes:
    """The open sizes of one model as variables, and the tensors that are known through them."""

    analyzer: Any = field(default_factory=sym.Analyzer)
    dims: dict[str, Dim] = field(default_factory=dict[str, Dim])
    variables: dict[str, Expr] = field(default_factory=dict[str, Any])
    known: dict[str, Numbers] = field(default_factory=dict[str, Numbers])
    notes: list[str] = field(default_factory=list[str])

    def variable(self, dim: Dim) -> Expr:
        """The variable of an open size, known to lie within its bounds; of a sum the sum."""
        if dim.parts:
            return self.plain(sum(self.variables[part] for part in dim.parts) + dim.plus)
        if dim.name not in self.variables:
            self.variables[dim.name] = tirx.Var(dim.name, "int64")
            self._bind(dim)
        return self.variables[dim.name]

    def _bind(self, dim: Dim) -> None:
        self.dims[dim.name] = dim
        low, end = dim.low, (_LARGEST if dim.high is None else dim.high) + 1
        span = tvm.ir.Range.from_min_extent(*(tirx.const(x, "int64") for x in (low, end - low)))
        self.analyzer.bind(self.variables[dim.name], span, allow_override=True)

    def limit(self, size: Any, most: int, why: str) -> None:
        """Bound an open size that nothing bounds yet, since the model is of no use beyond."""
        name = next((n for n, var in self.variables.items() if var.same_as(size)), None)
        if name is None or self.dims[name].high is not None or self.dims[name].low > most:
            return
        self._bind(replace(self.dims[name], high=most))
        self.notes.append(f"{name} is at most {most}: {why}")

    def lower_until_natural(self, number: Any, why: str) -> None:
        """Bound the one open size that a number falls with, so that it is not negative.

        Left as it is where it is negative at the least size, or at none.
        """
        if (dim := self._followed((number,))) is None or dim.high is not None:
            return
        fits, beyond = dim.low, _LARGEST
        if self._at(number, dim, fits) < 0 or self._at(number, dim, beyond) >= 0:
            return
        while beyond - fits > 1:
            middle = (fits + beyond) // 2
            natural = self._at(number, dim, middle) >= 0
            fits, beyond = (middle, beyond) if natural else (fits, middle)
        self._bind(replace(dim, high=fits))
        self.notes.append(f"{dim.name} is at most {fits}: {why}")

    def raise_until_positive(self, extent: Any, why: str) -> None:
        """Raise the lower bound of the one open size that an extent grows with, until that is 1.

        Left as it is where no size within its bounds is enough, or many thousands are not.
        """
        if self.holds(extent >= 1) or (dim := self._followed((extent,))) is None:
            return
        fits = filter(dim.admits, range(dim.low, dim.low + MOST))
        least = next((n for n in fits if self._at(extent, dim, n) >= 1), dim.low)
        if least > dim.low and (dim.usual is None or dim.usual >= least):
            self._bind(replace(dim, low=least))
            self.notes.append(f"{dim.name} is at least {least}: {why}")

    def agree(self, one: Any, other: Any, why: str) -> bool:
        """Whether two extents are equal; the one open size that both follow from is made to.

        It becomes a multiple of the least step at which they always are, such as 4 for `h // 2` and
        `h // 4 * 2`, in whose other sizes the model itself would fail.  Raises SumError where that
        is so only if one size is the sum of others.
        """
        if self.same(one, other):
            return True
        dim = self._followed((one, other))
        if dim is None:
            size_sums.require_none(self, one, other)
            return False
        for step in range(dim.step, _LONGEST_STEP + 1, dim.step):
            alike = all(self._at(one, dim, n) == self._at(other, dim, n) for n in _sizes(step))
            if alike and self._step(dim, step, (one, other), why):
                return True
        return False

    def _step(self, dim: Dim, step: int, extents: tuple[Any, Any], why: str) -> bool:
        """Make an open size a multiple of a step, at which extents are equal; whether they are."""
        count = tirx.Var(dim.name, "int64")
        steps = sym.Analyzer()
        steps.bind(count, tvm.ir.Range.from_min_extent(*map(_index, (1, _LARGEST // step))))
        if not steps.can_prove_equal(*(self.with_size(e, dim, count * step) for e in extents)):
            return False
        try:
            narrowed = checked(replace(dim, step=step))
        except InputError:  # none lies within the bounds that the user gave
            return False
        if step != dim.step:
            self._bind(narrowed)
            self.notes.append(f"{dim.name} is a multiple of {step}: {why}")
        return True

    def _followed(self, extents: tuple[Any, ...]) -> Dim | None:
        """The open size that extents follow from; None where they follow from several, or none."""
        used = [v for e in extents for v in tirx.analysis.undefined_vars(_index(e))]
        names = {n for n, var in self.variables.items() if any(var.same_as(v) for v in used)}
        return self.dims[names.pop()] if len(names) == 1 else None

    def _at(self, extent: Any, dim: Dim, size: int) -> Any:
        """An extent where an open size is so large."""
        return self.plain(self.with_size(extent, dim, _index(size)))

    def with_size(self, extent: Any, dim: Dim, value: Expr) -> Any:
        """An extent with an expression in place of an open size."""
        variable = self.variables[dim.name]

        def place(var: Expr) -> Expr:
            return value if var.same_as(variable) else var

        return structural_map(_index(extent), (tirx.Var, place))

    def plain(self, size: Any) -> Any:
        """An expression with its arithmetic done; an int where that leaves a number."""
        if isinstance(size, int | np.integer | np.bool_):
            return size.item() if isinstance(size, np.generic) else size
        if isinstance(size, Fraction):
            return self._plain_fraction(size)
        done = self.analyzer.simplify(size)
        if not isinstance(done, tirx.IntImm):
            return done
        return bool(done.value) if str(done.ty.dtype) == "bool" else int(done)

    def _plain_fraction(self, fraction: Fraction) -> Any:
        over, under = self.plain(fraction.over), fraction.under
        while under > 1 and self.same(over % 2, 0):
            over, under = self.plain(over // 2), under // 2
        return over if under == 1 else Fraction(over, under)

    def truth(self, condition: Any) -> bool:
        """Whether a comparison holds for all sizes, or for none.  Raises UnknownError else."""
        if isinstance(condition, bool | np.bool_):
            return bool(condition)
        if self.analyzer.can_prove(condition):
            return True
        if self.analyzer.can_prove(tirx.Not(condition)):
            return False
        raise UnknownError

    def holds(self, condition: Any) -> bool:
        """Whether a comparison is known to hold for all sizes."""
        try:
            return self.truth(condition)
        except UnknownError:
            return False

    def same(self, one: Any, other: Any) -> bool:
        """Whether two sizes are known to be equal."""
        if isinstance(one, int) and isinstance(other, int):
            return one == other
        return bool(self.analyzer.can_prove_equal(one, other))

    def quotient(self, a: Any, b: Any) -> Any:
        """Integer division as ONNX's, of numbers that are not negative."""
        if not (self.truth(a >= 0) and self.truth(b > 0)):
            raise UnknownError
        return self.plain(a // b)

    def shape_of(self, value: Expr) -> list[Any] | None:
        """The sizes of a tensor; None where they are not known."""
        extents = getattr(getattr(value.ty, "shape", None), "values", None)
        return None if extents is None else [self.plain(extent) for extent in extents]

    def numbers(self, name: str, value: Expr) -> Numbers | None:
        """What is known of an input of a node."""
        if name in self.known:
            return self.known[name]
        if not isinstance(value, tvm.ir.GenericConst):
            return None
        array = value.value.numpy()
        kind = str(array.dtype)
        if kind in _FLOATS and array.size <= _MOST_FLOATS:
            parts = _fractions(array)
            return None if parts is None else Numbers(parts, kind)
        if array.dtype.kind not in "bi" or array.size > MOST:
            return None
        return Numbers(array.astype(object), kind)

    def tensor(self, name: str) -> Expr:
        """What is known as a tensor for an operator that reads it as data."""
        numbers = self.known[name]
        if not numbers.open:
            return constant(np.array(numbers.values.tolist()), numbers.dtype)
        parts = [v if isinstance(v, Fraction) else Fraction(v, 1) for v in numbers.values.flat]
        value: Expr = relax.op.shape_to_tensor(relax.ShapeExpr([_index(p.over) for p in parts]))
        if numbers.dtype != "int64":
            value = relax.op.astype(value, numbers.dtype)
        if any(part.under > 1 for part in parts):
            unders = np.array([part.under for part in parts])
            value = relax.op.divide(value, constant(unders, numbers.dtype))
        if numbers.values.ndim != 1:
            value = relax.op.reshape(value, list(numbers.values.shape))
        return value


def _fractions(floats: Array) -> Array | None:
    """Floats as integers, and fractions of some more bits; None where one has too many."""
    steps = floats.astype(np.float64) * _FINEST
    if not np.all(np.isfinite(steps)) or np.any(steps != np.floor(steps)):
        return None
    if np.any(np.abs(steps) >= _LARGEST):
        return None
    made = np.empty(floats.shape, object)
    for index in np.ndindex(made.shape):
        step = int(steps[index])
        under = _FINEST // math.gcd(step, _FINEST)
        made[index] = step * under // _FINEST
        if under > 1:
            made[index] = Fraction(made[index], under)
    return made


def _sizes(step: int) -> list[int]:
    return [step * count for count in _TRIED]


def _index(size: Any) -> Expr:
    return tirx.const(size, "int64") if isinstance(size, int) else size
