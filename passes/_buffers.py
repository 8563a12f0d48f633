"""Functions whose kernels write into buffers given to them: who allocates and uses these."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tvm import relax, tirx

from hybridc.compiler.interfaces import IRModule, PrimFunc
from hybridc.compiler.ir.rewrite import operator

Var = Any  # tvm.relax.Var
Call = Any  # tvm.ir.Call


@dataclass
class Buffers:
    """The bindings of a function in order, and what is known of the tensors in it.

    `calls` are the calls of kernels by the index of their binding.  `readers` counts a tensor's
    uses as argument of a kernel, `others` all its other uses.  Each tensor goes by its first name.
    """

    bindings: list[Any] = field(default_factory=list[Any])
    calls: dict[int, Call] = field(default_factory=dict[int, Call])
    allocations: dict[Var, int] = field(default_factory=dict[Var, int])
    others: Counter[Var] = field(default_factory=Counter[Var])
    users: dict[Var, list[tuple[Call, int]]] = field(default_factory=dict[Var, Any])
    _names: dict[Var, Var] = field(default_factory=dict[Var, Var])

    def tensor(self, expr: Any) -> Any:
        """The first name of a tensor; what is no variable is its own."""
        return self._names.get(expr, expr)

    def add(self, binding: Any, module: IRModule) -> None:
        """Note what one binding allocates, names and uses."""
        index, value = len(self.bindings), binding.value
        self.bindings.append(binding)
        if isinstance(value, relax.Var):
            self._names[binding.var] = self.tensor(value)
        elif operator(value) == "builtin.alloc_tensor":
            self.allocations[binding.var] = index
        elif kernel_of(value, module) is not None:
            self.calls[index] = value
            for position, argument in enumerate(value.args):
                if isinstance(argument, relax.Var):
                    uses = self.users.setdefault(self.tensor(argument), [])
                    uses.append((value, position))
        else:
            self.use(value)

    def use(self, expr: Any) -> None:
        """Note that something else than a kernel uses all variables of an expression."""
        self.others.update(self.tensor(var) for var in relax.analysis.free_vars(expr))


def buffers_of(function: Any, module: IRModule) -> Buffers:
    """Read a function; branches count as one use of what they read."""
    found = Buffers()
    for block in function.body.blocks:
        for binding in block.bindings:
            found.add(binding, module)
    found.use(function.body.body)
    return found


def kernel_of(value: Any, module: IRModule) -> PrimFunc | None:
    """The loop nest that an expression calls, or None."""
    callee = getattr(value, "op", None)
    if not isinstance(callee, relax.GlobalVar):
        return None
    func = module[callee]
    return func if isinstance(func, tirx.PrimFunc) else None
