"""A node of ONNX some of whose sizes are open."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tvm import relax, tirx

from hybridc.compiler.errors import UnsupportedError
from hybridc.compiler.frontends.onnx_import.sizes import Numbers, Sizes

Expr = Any  # a Relax expression


@dataclass(frozen=True)
class OpenNode:
    """A node: its inputs as Relax (None: left out), as numbers where they are known."""

    inputs: Sequence[Expr]
    numbers: Sequence[Numbers | None]
    options: Mapping[str, Any]
    sizes: Sizes

    def shape(self, index: int = 0) -> list[Any]:
        """The sizes of an input.  Raises UnsupportedError where they are not known."""
        found = self.sizes.shape_of(self.inputs[index])
        if found is None:
            raise UnsupportedError("a shape that depends on the data")
        return found

    def list(self, index: int) -> list[Any] | None:
        """An input as a list of integers and expressions; None where it is not known as such."""
        numbers = self.numbers[index] if len(self.numbers) > index else None
        return None if numbers is None else list(numbers.values.flat)


def shape_of(sizes: Sequence[Any]) -> Expr:
    """Sizes, numbers or expressions, as a shape of Relax."""
    return relax.ShapeExpr(
        [tirx.const(size, "int64") if isinstance(size, int) else size for size in sizes]
    )
