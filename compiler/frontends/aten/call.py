"""What a converter of an ATen operator is given.

A converter takes a `Call` and returns one Relax expression, or a tuple of one for each result; it
raises `UnsupportedError` for a form that it does not compute exactly.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hybridc.compiler.errors import UnsupportedError
from hybridc.compiler.frontends.onnx.node import Expr, Scope, static


@dataclass(frozen=True)
class Call:
    """An ATen call: arguments by the names of its schema, tensors as Relax, numbers as Python.

    `value` is what torch says of the result: a tensor without data, or a tuple of them.  `complex`
    names the arguments that are complex: they come as pairs of real numbers in a last axis.
    `values` is what torch says of the arguments that are tensors, and `used` are the results, by
    their numbers, that something reads.
    """

    operator: str
    arguments: Mapping[str, Any]
    value: Any
    scope: Scope
    complex: frozenset[str] = frozenset()
    values: Mapping[str, Any] = field(default_factory=dict[str, Any])
    used: frozenset[int] = frozenset((0,))

    def __getitem__(self, name: str) -> Any:
        """An argument, or its default."""
        return self.arguments[name]

    def shape(self, name: str = "self") -> tuple[int, ...]:
        """The static shape of a tensor argument.  Raises UnsupportedError where it has none."""
        return static(self.arguments[name])

    @property
    def results(self) -> tuple[tuple[tuple[int, ...], str], ...]:
        """Shape and dtype of each result, as torch has them."""
        values = self.value if isinstance(self.value, tuple | list) else (self.value,)
        return tuple((sizes(value), dtype_of(value)) for value in values)

    @property
    def gives_complex(self) -> bool:
        """Whether the result is complex."""
        return bool(self.value.is_complex())

    @property
    def part(self) -> str:
        """The type of the result's numbers, or of their real parts."""
        return part_of(self.value)


def sizes(value: Any) -> tuple[int, ...]:
    """The static shape of a tensor of torch's.  Raises UnsupportedError where it has none."""
    if not all(isinstance(size, int) for size in value.shape):
        raise UnsupportedError("a shape that depends on the data")
    return tuple(value.shape)


def dtype_of(value: Any) -> str:
    """The element type of a tensor of torch's, as numpy spells it."""
    return str(value.dtype).removeprefix("torch.")


def part_of(value: Any) -> str:
    """The type of a tensor's numbers, or of their real parts."""
    return dtype_of(value.real) if value.is_complex() else dtype_of(value)


Converter = Callable[[Call], Expr | tuple[Expr, ...]]
