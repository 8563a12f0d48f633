"""A node that computes integers of open sizes: what it is given, and what it makes of each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hybridc.compiler.frontends.onnx_import.sizes import Numbers, Sizes, UnknownError
from hybridc.compiler.model import Array

Expr = Any  # tvm.ir.Expr


@dataclass(frozen=True)
class Call:
    """One node: its attributes and `outputs`, its first input, what is known of its inputs."""

    sizes: Sizes
    options: Mapping[str, Any]
    data: Expr
    given: Sequence[Numbers | None]

    def input(self, index: int) -> Numbers:
        """What is known of an input.  Raises UnknownError where it is left out."""
        operand = self.given[index] if index < len(self.given) else None
        if operand is None:
            raise UnknownError
        return operand

    def array(self, index: int = 0) -> Array:
        """The numbers of an input.  Raises UnknownError where it is left out."""
        return self.input(index).values

    def ints(self, index: int, name: str, default: Any = None) -> Any:
        """Axes and the like: an input, or an attribute in older opsets."""
        if len(self.given) > index and self.given[index] is not None:
            found = self.array(index)
            if not all(isinstance(v, int) for v in found.flat):
                raise UnknownError
            return [int(v) for v in found.flat]
        return self.options.get(name, default)

    def same(self, values: Any) -> Numbers:
        """A result of the first input's type."""
        first = self.given[0]
        return Numbers(np.asarray(values, object), "int64" if first is None else first.dtype)


def scalar(value: Any) -> Array:
    """An array of one number, or expression, without axes."""
    made = np.empty((), object)
    made[()] = value
    return made


def each(function: Callable[..., Any], *arrays: Array) -> Array:
    """A function of each element, operands broadcast."""
    found = np.broadcast_arrays(*arrays)
    results = np.empty(found[0].shape, object)
    for index in np.ndindex(results.shape):
        results[index] = function(*(array[index] for array in found))
    return results
