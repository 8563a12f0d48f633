"""Elements that are scattered along an axis, of which the index may reach only a part."""

from collections.abc import Sequence

from hybridc.compiler.frontends.onnx.node import Expr, Scope, static


def scattered(  # noqa: PLR0913, PLR0917 - what a scatter is made of
    s: Scope, x: Expr, axis: int, index: Expr, source: Expr, how: str
) -> Expr:
    """Write elements of a source along an axis; the index may be smaller than either.

    TVM's kernel takes it that the index reaches along every other axis of x, so it gets that part
    of x alone.
    """
    if not static(x):
        one = [s.reshape(value, [1]) for value in (x, index, source)]
        return s.reshape(scattered(s, one[0], 0, one[1], one[2], how), [])
    extents, axis = static(index), axis % len(static(x))
    if 0 in extents:
        return x
    if static(source) != extents:
        source = _corner(s, source, extents)
    inner = [n if a == axis else extents[a] for a, n in enumerate(static(x))]
    part = _corner(s, x, inner) if inner != list(static(x)) else x
    result = s.scatter_elements(part, s.as_type(index, "int64"), source, axis=axis, reduction=how)
    for a, extent in enumerate(static(x)):
        if inner[a] < extent:  # what the index does not reach stays
            region = _corner(s, x, [*static(result)[:a], extent, *inner[a + 1 :]])
            rest = s.strided_slice(region, [a], [inner[a]], [extent])
            result = s.concat([result, rest], axis=a)
    return result


def _corner(s: Scope, x: Expr, extents: Sequence[int]) -> Expr:
    axes = [a for a, n in enumerate(static(x)) if extents[a] != n]
    if not axes:
        return x
    return s.strided_slice(x, axes, [0] * len(axes), [extents[a] for a in axes])
