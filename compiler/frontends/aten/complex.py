"""Complex numbers as pairs of real ones, in a last axis of their own.

`LINEAR` are operators that treat real and imaginary parts alike: the importer applies the converter
of real numbers to each.  `COMPLEX` are those that mix them.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from hybridc.compiler.frontends.aten import spectra
from hybridc.compiler.frontends.aten.call import Call, Converter
from hybridc.compiler.frontends.onnx.node import Expr, Scope, number, static
from hybridc.compiler.ir.rewrite import constant

LINEAR = frozenset(
    {
        "alias.default",
        "as_strided.default",
        "cat.default",
        "clone.default",
        "constant_pad_nd.default",
        "copy.default",
        "cumsum.default",
        "diagonal.default",
        "div.Scalar",
        "expand.default",
        "flip.default",
        "gather.default",
        "getitem",
        "index.Tensor",
        "index_select.default",
        "mean.default",
        "mean.dim",
        "neg.default",
        "permute.default",
        "repeat.default",
        "reshape.default",
        "roll.default",
        "select.int",
        "select_scatter.default",
        "slice.Tensor",
        "slice_scatter.default",
        "split_with_sizes.default",
        "squeeze.dims",
        "stack.default",
        "sum.default",
        "sum.dim_IntList",
        "tril.default",
        "triu.default",
        "unsqueeze.default",
        "view.default",
        "where.self",
    }
)


def parts(s: Scope, x: Expr) -> tuple[Expr, Expr]:
    """The real and the imaginary numbers of a tensor of pairs."""
    last = len(static(x)) - 1
    return tuple(
        s.squeeze(s.strided_slice(x, [last], [part], [part + 1]), axis=[last]) for part in (0, 1)
    )


def paired(s: Scope, real: Expr, imaginary: Expr) -> Expr:
    """A tensor of pairs."""
    return s.stack([real, imaginary], axis=len(static(real)))


def _of(c: Call, name: str) -> tuple[Any, Any]:
    """An operand's parts; of a real one, or of a number, too."""
    value, s = c[name], c.scope
    if isinstance(value, complex | int | float):
        number = complex(value)
        return number.real, number.imag
    if name in c.complex:
        return parts(s, value)
    value = s.as_type(value, c.part)
    return value, s.zeros_like(value)


def _complex(c: Call) -> Expr:
    s, shape = c.scope, list(c.results[0][0])
    both = [s.broadcast_to(s.as_type(c[name], c.part), shape) for name in ("real", "imag")]
    return paired(s, *both)


def _polar(c: Call) -> Expr:
    s, size, angle = c.scope, c["abs"], c["angle"]
    return paired(s, s.multiply(size, s.cos(angle)), s.multiply(size, s.sin(angle)))


def _same(c: Call) -> Expr:
    return c["self"]


def _conjugate(c: Call) -> Expr:
    real, imaginary = parts(c.scope, c["self"])
    return paired(c.scope, real, c.scope.negative(imaginary))


def _abs(c: Call) -> Expr:
    return _size(c.scope, *parts(c.scope, c["self"]))


def _size(s: Scope, real: Expr, imaginary: Expr) -> Expr:
    """Scaled by the larger part, so that squares do not overflow."""
    one, two = s.abs(real), s.abs(imaginary)
    larger, smaller = s.maximum(one, two), s.minimum(one, two)
    ratio = s.divide(smaller, s.where(s.equal(larger, 0.0), number(1, larger), larger))
    return s.multiply(larger, s.sqrt(s.add(s.multiply(ratio, ratio), 1.0)))


def _angle(c: Call) -> Expr:
    real, imaginary = parts(c.scope, c["self"])
    return c.scope.atan2(imaginary, real)


def _sum(sign: int) -> Converter:
    def convert(c: Call) -> Expr:
        s, both = c.scope, zip(_of(c, "self"), _of(c, "other"), strict=True)
        factor = sign * c.arguments.get("alpha", 1)
        return paired(s, *(_added(s, a, b, factor) for a, b in both))

    return convert


def _added(s: Scope, a: Expr, b: Any, factor: float) -> Expr:
    if not hasattr(b, "ty"):
        return s.add(a, b * factor)
    return s.add(a, b if factor == 1 else s.multiply(b, factor))


def _multiply(c: Call) -> Expr:
    (a, b), (x, y), s = _of(c, "self"), _of(c, "other"), c.scope
    real = s.subtract(s.multiply(a, x), s.multiply(b, y))
    return paired(s, real, s.add(s.multiply(a, y), s.multiply(b, x)))


def _divide(c: Call) -> Expr:
    (a, b), (x, y), s = _of(c, "self"), _of(c, "other"), c.scope
    if "other" not in c.complex:
        return paired(s, s.divide(a, x), s.divide(b, x))
    size = s.add(s.multiply(x, x), s.multiply(y, y))
    real = s.add(s.multiply(a, x), s.multiply(b, y))
    imaginary = s.subtract(s.multiply(b, x), s.multiply(a, y))
    return paired(s, s.divide(real, size), s.divide(imaginary, size))


def _exp(c: Call) -> Expr:
    s, (real, imaginary) = c.scope, parts(c.scope, c["self"])
    size = s.exp(real)
    return paired(s, s.multiply(size, s.cos(imaginary)), s.multiply(size, s.sin(imaginary)))


def _log(c: Call) -> Expr:
    s, (real, imaginary) = c.scope, parts(c.scope, c["self"])
    return paired(s, s.log(_size(s, real, imaginary)), s.atan2(imaginary, real))


def _sqrt(c: Call) -> Expr:
    """The root whose real part is not negative; the part that would cancel follows by division."""
    s, (real, imaginary) = c.scope, parts(c.scope, c["self"])
    far = s.add(_size(s, real, imaginary), s.abs(real))
    root = s.sqrt(s.multiply(far, number(0.5, far)))
    double = s.multiply(s.where(s.equal(root, 0.0), number(1, root), root), number(2, root))
    other, right = s.divide(s.abs(imaginary), double), s.greater_equal(real, 0.0)
    size = s.where(right, other, root)
    signed = s.where(s.less(imaginary, 0.0), s.negative(size), size)
    return paired(s, s.where(right, root, other), signed)


def _reciprocal(c: Call) -> Expr:
    s, (real, imaginary) = c.scope, parts(c.scope, c["self"])
    size = s.add(s.multiply(real, real), s.multiply(imaginary, imaginary))
    return paired(s, s.divide(real, size), s.negative(s.divide(imaginary, size)))


def _filled(c: Call) -> Expr:
    """A tensor of the same number."""
    value, shape = complex(c["fill_value"]), [*c.results[0][0], 2]
    return c.scope.broadcast_to(constant(np.array([value.real, value.imag]), c.part), shape)


def _product(second: str) -> Converter:
    """One product: the rows of real parts, and those of imaginary ones, times columns of both."""

    def convert(c: Call) -> Expr:
        s = c.scope
        if min(c.values[name].dim() for name in ("self", second)) < 2:
            return _product_of_parts(s, _of(c, "self"), _of(c, second))
        a, b = (_pairs_of(c, name) for name in ("self", second))
        (*outer, m, k, _), (*_, n, _) = static(a), static(b)
        rows = s.reshape(s.permute_dims(a, _moved(a, -1, -3)), [*outer, 2 * m, k])
        columns = s.reshape(s.permute_dims(b, _moved(b, -1, -2)), [*static(b)[:-2], 2 * n])
        product = s.matmul(rows, columns)
        product = s.reshape(product, [*static(product)[:-2], 2, m, 2, n])
        of_real, of_imaginary = (_at(s, product, -4, part) for part in (0, 1))
        real = s.subtract(_at(s, of_real, -2, 0), _at(s, of_imaginary, -2, 1))
        return paired(s, real, s.add(_at(s, of_real, -2, 1), _at(s, of_imaginary, -2, 0)))

    return convert


def _product_of_parts(s: Scope, one: tuple[Any, Any], two: tuple[Any, Any]) -> Expr:
    (a, b), (x, y) = one, two
    real = s.subtract(s.matmul(a, x), s.matmul(b, y))
    return paired(s, real, s.add(s.matmul(a, y), s.matmul(b, x)))


def _pairs_of(c: Call, name: str) -> Expr:
    return c[name] if name in c.complex else paired(c.scope, *_of(c, name))


def _moved(x: Expr, of: int, to: int) -> list[int]:
    """The order of axes in which one of them has moved."""
    order = list(range(len(static(x))))
    order.insert(len(order) + to, order.pop(of))
    return order


def _at(s: Scope, x: Expr, axis: int, place: int) -> Expr:
    """What lies at one place along an axis."""
    axis %= len(static(x))
    return s.squeeze(s.strided_slice(x, [axis], [place], [place + 1]), axis=[axis])


def _cast(c: Call) -> Expr:
    """To another precision, from real numbers too; to real ones the imaginary part is left out."""
    s, kind = c.scope, c.part
    real, imaginary = _of(c, "self")
    if not c.gives_complex:
        return s.as_type(real, kind)
    return paired(s, s.as_type(real, kind), s.as_type(imaginary, kind))


def _negated(c: Call) -> Expr:
    """The imaginary part of a conjugate, which torch negates as it is read."""
    return c.scope.negative(c["self"])


CONVERTERS: Mapping[str, Converter] = MappingProxyType({"_neg_view.default": _negated})
COMPLEX: Mapping[str, Converter] = MappingProxyType(
    {
        "_conj.default": _conjugate,
        "_conj_physical.default": _conjugate,
        **spectra.TRANSFORMS,
        "_to_copy.default": _cast,
        "abs.default": _abs,
        "add.Tensor": _sum(1),
        "angle.default": _angle,
        "bmm.default": _product("mat2"),
        "complex.default": _complex,
        "div.Tensor": _divide,
        "exp.default": _exp,
        "full.default": _filled,
        "full_like.default": _filled,
        "matmul.default": _product("other"),
        "mm.default": _product("mat2"),
        "log.default": _log,
        "mul.Scalar": _multiply,
        "mul.Tensor": _multiply,
        "polar.default": _polar,
        "reciprocal.default": _reciprocal,
        "resolve_conj.default": _same,
        "resolve_neg.default": _same,
        "sqrt.default": _sqrt,
        "sub.Tensor": _sum(-1),
        "view_as_complex.default": _same,
        "view_as_real.default": _same,
    }
)
