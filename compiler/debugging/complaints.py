"""What may be wrong with a module: its answers, or the time it takes; and how to show it alone."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from hybridc.compiler.debugging.bisection import Culprit
from hybridc.compiler.errors import WrongAnswerError
from hybridc.compiler.instruments import NumericVerify
from hybridc.compiler.interfaces import IRModule
from hybridc.compiler.ir.evaluate import machine, tensor
from hybridc.compiler.model import Array

_RUNS = 5


@dataclass(frozen=True)
class Wrong:
    """Complains of a module that computes something else than the reference."""

    verify: NumericVerify

    def __call__(self, module: IRModule) -> str | None:
        """What differs, or None."""
        for feed, wanted in zip(self.verify.feeds, self.verify.wanted, strict=True):
            try:
                self.verify.check(module, feed, wanted)
            except WrongAnswerError as error:
                return str(error)
        return None


@dataclass(frozen=True)
class Slow:
    """Complains of a module that takes more than `factor` times the `usual` seconds.

    The modules are built as they stand, so times before kernels are scheduled are TVM's own.
    """

    inputs: Sequence[Array]
    factor: float
    usual: float = float("inf")

    def measure(self, module: IRModule) -> float:
        """Seconds of a call, the least of some."""
        run: Any = machine(module)["main"]
        arguments = list(map(tensor, self.inputs))
        run(*arguments)
        seconds: list[float] = []
        for _ in range(_RUNS):
            start = time.perf_counter()
            run(*arguments)
            seconds.append(time.perf_counter() - start)
        return min(seconds)

    def against(self, module: IRModule) -> "Slow":
        """The same complaint, compared with another module."""
        return replace(self, usual=self.measure(module))

    def __call__(self, module: IRModule) -> str | None:
        """How much longer a call takes, or None."""
        taken = self.measure(module)
        if taken <= self.factor * self.usual:
            return None
        return f"a call takes {taken / self.usual:.2f} times as long as before"


def alone(culprit: Culprit) -> IRModule:
    """The module before the pass, or the kernel with a `main` of its own where there is one."""
    if culprit.kernel is None:
        return culprit.before
    cut = _with_main(culprit.before, culprit.kernel)
    return culprit.before if cut is None else cut


def _with_main(module: IRModule, name: str) -> IRModule | None:
    """A kernel and a `main` that calls it as the module does; None if it is called otherwise."""
    from tvm import relax

    from hybridc.compiler.ir.rewrite import bindings_of, operator

    builder = relax.BlockBuilder()
    for binding in bindings_of(module["main"]):
        call = binding.value
        if operator(call) != "call_tir" or call.args[0].name_hint != name:
            continue
        parameters = [relax.Var(f"x{i}", arg.ty) for i, arg in enumerate(call.args[1].fields)]
        kernel = builder.add_func(module[name], name)
        with builder.function("main", parameters):
            result = builder.emit(relax.call_tir(kernel, parameters, binding.var.ty))
            builder.emit_func_output(result)
        return builder.get()
    return None
