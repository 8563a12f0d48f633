"""A product with the elementwise operators around it, as data that is passed to a backend.

It is stored in the manifest of an artifact, so it is plain JSON.  Values are numbered: first the
operands, then the result of each step.  The last step computes the result.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from math import prod
from typing import Any

import numpy as np

from hybridc.compiler.errors import ArtifactError
from hybridc.compiler.log.record import digest

_MOST = 64  # steps of one subgraph; matching makes far fewer


@dataclass(frozen=True)
class Value:
    """A tensor: its shape, and its dtype as numpy and ml_dtypes spell it."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def bytes(self) -> int:
        """Its size in memory, in bytes."""
        bits = {"bool": 8, "bfloat16": 16}.get(self.dtype)
        return prod(self.shape) * ((bits or np.dtype(self.dtype).itemsize * 8) // 8)


@dataclass(frozen=True)
class Operand(Value):
    """An input; a `constant` is the same in every call, and `number` is its value if a scalar."""

    constant: bool = False
    number: float | None = None


@dataclass(frozen=True)
class Step(Value):
    """One operator, by its name in Relax, with the numbers of its operands."""

    operator: str
    operands: tuple[int, ...]
    attributes: Mapping[str, Any]


@dataclass(frozen=True)
class Subgraph:
    """The operands and the steps, in order."""

    operands: tuple[Operand, ...]
    steps: tuple[Step, ...]

    @property
    def result(self) -> Step:
        """The last step, whose value is the result."""
        return self.steps[-1]

    @property
    def operators(self) -> tuple[str, ...]:
        """The names of the steps' operators, in order."""
        return tuple(step.operator for step in self.steps)

    @property
    def anchor(self) -> Step:
        """The step with the most arithmetic."""
        return max(self.steps, key=self.flops_of)

    @property
    def inputs(self) -> tuple[int, ...]:
        """The numbers of the operands that are not constant."""
        return tuple(i for i, each in enumerate(self.operands) if not each.constant)

    def value(self, number: int) -> Value:
        """An operand or a step by its number."""
        count = len(self.operands)
        return self.operands[number] if number < count else self.steps[number - count]

    def place(self, step: int) -> int:
        """The number of a step's value."""
        return len(self.operands) + step

    @cached_property
    def flops(self) -> int:
        """The FLOPs of the products; a multiply-add counts as two."""
        return sum(map(self.flops_of, self.steps))

    def flops_of(self, step: Step) -> int:
        """The FLOPs of one step; 0 if it is not a product."""
        if step.operator == "matmul":
            return 2 * prod(step.shape) * self.value(step.operands[0]).shape[-1]
        if step.operator == "nn.conv2d":
            _, *window = self.value(step.operands[1]).shape  # OHWI; I is of one group
            return 2 * prod(step.shape) * prod(window)
        return 0

    @cached_property
    def bytes(self) -> int:
        """The bytes that are read and written at least."""
        return sum(each.bytes for each in self.operands) + self.result.bytes

    @cached_property
    def key(self) -> str:
        """A key that is equal for subgraphs that compute the same, with whatever weights."""
        return digest(self.to_json())

    def to_json(self) -> dict[str, Any]:
        """The subgraph as JSON data."""
        return asdict(self)

    @classmethod
    def of_json(cls, data: Any) -> "Subgraph":
        """Read what `to_json` wrote.  Raises ArtifactError for anything else."""
        try:
            operands = tuple(_operand(each) for each in data["operands"])
            steps = tuple(_step(each) for each in data["steps"])
        except (KeyError, TypeError, ValueError) as error:
            raise ArtifactError(f"a subgraph is malformed: {error}") from None
        subgraph = cls(operands, steps)
        if not 0 < len(steps) <= _MOST or not subgraph._ordered():
            raise ArtifactError("a subgraph is malformed: its steps read what is not there")
        return subgraph

    def _ordered(self) -> bool:
        count = len(self.operands)
        return all(
            0 <= operand < count + place
            for place, step in enumerate(self.steps)
            for operand in step.operands
        )


def _operand(fields: Mapping[str, Any]) -> Operand:
    number = fields["number"]
    value = None if number is None else float(number)
    return Operand(_shape(fields), str(fields["dtype"]), bool(fields["constant"]), value)


def _step(fields: Mapping[str, Any]) -> Step:
    operands = tuple(int(each) for each in fields["operands"])
    attributes = dict(fields["attributes"])
    return Step(_shape(fields), str(fields["dtype"]), str(fields["operator"]), operands, attributes)


def _shape(fields: Mapping[str, Any]) -> tuple[int, ...]:
    if any(type(extent) is not int or extent < 0 for extent in fields["shape"]):
        raise ValueError(f"no shape: {fields['shape']!r:.60}")
    return tuple(fields["shape"])
