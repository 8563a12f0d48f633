"""What can watch a pipeline run: time, IR dumps, and a check of the numbers after each pass.

Instruments nest like parentheses around a pass: give `Timing` last, so that it times the pass
alone and not the other instruments.
"""

import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hybridc.compiler import plugin
from hybridc.compiler.assurance import answers, verify
from hybridc.compiler.errors import HybridcError, InputError
from hybridc.compiler.interfaces import IRModule, Pass
from hybridc.compiler.ir.evaluate import evaluate_model
from hybridc.compiler.model import Array, Feed, Model
from hybridc.compiler.monitoring.timeline import Timeline


@dataclass
class Timing:
    """Seconds that each pass took, with the pass's text, in the order of the run.

    They stand on a timeline too: as spans that hold what a pass puts there.
    """

    timeline: Timeline = field(default_factory=Timeline)
    seconds: list[tuple[str, float]] = field(default_factory=list[tuple[str, float]])
    _started: int = 0

    def before(self, step: Pass, module: IRModule) -> None:
        """Start the clock."""
        self._started = time.perf_counter_ns()

    def after(self, step: Pass, before: IRModule, after: IRModule) -> None:
        """Stop the clock."""
        text, end = plugin.text(step), time.perf_counter_ns()
        self.seconds.append((text, (end - self._started) / 1e9))
        self.timeline.add(text, "pass", self._started, end, os.getpid())


@dataclass
class DumpIr:
    """Writes the module before and after each pass that changed it, as numbered files.

    `03-fold-padding-before.py` and `03-fold-padding-after.py` are the third pass of the run.
    Constants stand as references without their values.  Raises InputError if `directory`
    cannot be written.
    """

    directory: Path
    _count: int = 0

    def before(self, step: Pass, module: IRModule) -> None:
        """Count the pass."""
        self._count += 1

    def after(self, step: Pass, before: IRModule, after: IRModule) -> None:
        """Write both sides where they differ."""
        if _same(before, after):
            return
        name = f"{self._count:02}-{plugin.name_of(type(step))}"
        self._write(f"{name}-before.py", before)
        self._write(f"{name}-after.py", after)

    def _write(self, name: str, module: IRModule) -> None:
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            (self.directory / name).write_text(f"{module.script()}\n")
        except OSError as error:
            raise InputError(f"cannot write IR to {self.directory}: {error.strerror}") from error


@dataclass(frozen=True)
class NumericVerify:
    """Runs the module after each pass that changed it, and compares with the reference.

    `wanted` holds the reference's outputs for each of `feeds`; `how` is what these are held to, but
    for the products, which are those that passes have `lowered` by then.  The module runs through
    TVM's own lowering (see `evaluate`), which takes seconds for a large model.  Raises
    WrongAnswerError, which names the pass, the output, the first element that differs, both values
    and the tolerance.
    """

    model: Model
    feeds: Sequence[Feed]
    wanted: Sequence[Sequence[Array]]
    how: verify.How = verify.USUAL
    lowered: Counter[str] = field(default_factory=Counter[str])

    def before(self, step: Pass, module: IRModule) -> None:
        """Nothing to do: the module was checked after the pass that made it."""

    def after(self, step: Pass, before: IRModule, after: IRModule) -> None:
        """Compare every output for every feed; a GPU's kernels are beyond this CPU."""
        if _same(before, after) or _on_gpu(after):
            return
        for feed, wanted in zip(self.feeds, self.wanted, strict=True):
            try:
                self.check(after, feed, wanted)
            except HybridcError as error:
                raise type(error)(f"after pass {plugin.text(step)}: {error}") from error

    def check(self, module: IRModule, feed: Feed, wanted: Sequence[Array]) -> None:
        """Compare every output for one feed.  Raises WrongAnswerError."""
        got = evaluate_model(self.model, module, feed)
        how = self.how._replace(products=self.lowered.total())
        verify.check(answers.compare(self.model, [feed], [wanted], [got], how))


def _on_gpu(module: IRModule) -> bool:
    from tvm import tirx

    from hybridc.compiler.ir.memory import is_bound

    kernels = [func for func in module.functions.values() if isinstance(func, tirx.PrimFunc)]
    return any(is_bound(kernel) for kernel in kernels)


def _same(before: IRModule, after: IRModule) -> bool:
    import tvm_ffi

    return before is after or tvm_ffi.structural_equal(before, after, map_free_vars=True)
