"""Open sizes of exported programs, which torch writes as symbols with ranges."""

from collections.abc import Iterable, Mapping
from typing import Any

from hybridc.compiler.dims import Dim, Size
from hybridc.compiler.errors import ModelError
from hybridc.compiler.model import TensorSpec

_LARGEST = 2**31 - 1


def spec(name: str, value: Any, ranges: Mapping[Any, Any]) -> TensorSpec:
    """The spec of an input from its fake tensor; `ranges` are those of the program's symbols.

    Raises ModelError where a size is neither a number nor a symbol.
    """
    shape = tuple(_size(name, size, ranges) for size in value.shape)
    return TensorSpec(name, shape, str(value.dtype).removeprefix("torch."))


def _size(name: str, size: Any, ranges: Mapping[Any, Any]) -> Size:
    """A number, or an open size with the bounds that it was exported with."""
    if isinstance(size, int):
        return size
    symbol = size.node.expr
    if symbol.is_Integer:  # left to torch, which found that it can be no other
        return int(symbol)
    if not symbol.is_Symbol:
        raise ModelError(f"input {name!r} has the size {symbol}; export it with plain ones")
    bounds = ranges.get(symbol)
    low, high = (1, _LARGEST) if bounds is None else (bounds.lower, bounds.upper)
    return Dim(str(symbol), max(1, int(low)), int(high) if high < _LARGEST else None)


def forms(specs: Iterable[TensorSpec]) -> list[Any]:
    """Inputs but for the bounds of their open sizes, which a model may make narrower."""
    return [(spec.name, tuple(map(str, spec.shape)), spec.dtype) for spec in specs]
