"""Numbers of a table, computed of open sizes and of each other."""

from dataclasses import dataclass, field
from typing import Any

from tvm import tirx
from tvm_ffi import structural_equal, structural_hash

Expr = Any  # tvm.ir.Expr of int64


@dataclass
class Numbers:
    """Numbers of the table in their order, as expressions of open sizes and of numbers before.

    Written out, sums of many sizes would keep TVM busy.
    """

    values: list[Expr] = field(default_factory=list[Expr])
    names: list[Any] = field(default_factory=list[Any])
    _alike: dict[int, list[Any]] = field(default_factory=dict[int, list[Any]])

    def add(self, value: Expr) -> Any:
        """A variable that stands for one more."""
        self.values.append(value)
        self.names.append(tirx.Var(f"number{len(self.names)}", "int64"))
        return self.names[-1]

    def once(self, value: Expr) -> Any:
        """The variable of an equal one that there is, or of one more."""
        key = structural_hash(value)
        for name in self._alike.setdefault(key, []):
            if structural_equal(self.values[self.place(name)], value):
                return name
        self._alike[key].append(self.add(value))
        return self.names[-1]

    def place(self, name: Any) -> int:
        """Where a number is, by its variable."""
        return next(i for i, each in enumerate(self.names) if each.same_as(name))
