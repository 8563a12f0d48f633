"""A kernel to tune, and how it crosses from one process of ours to another."""

import json
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

from hybridc.compiler import pipeline, plugin, target
from hybridc.compiler.building import build, link
from hybridc.compiler.errors import InputError, PassError
from hybridc.compiler.filesystem import scratch
from hybridc.compiler.hardware import cached_weights
from hybridc.compiler.interfaces import Context, NotApplicable, Point, PrimFunc, ScheduleRule
from hybridc.compiler.kernel_record import State
from hybridc.compiler.kernels import kernel_cost
from hybridc.compiler.log import keys
from hybridc.compiler.log.keys import Described
from hybridc.compiler.target import Target

# What the unscheduled function needs to be run at all.
_REFERENCE = "lower-bfloat16"
# The rule by which a GPU runs it.
_GPU_REFERENCE = "cuda-fallback"


class LinkError(Exception):
    """The C compiler could not link a kernel, which is no fault of its schedule."""


@dataclass(frozen=True, eq=False)
class Kernel:
    """A loop nest before scheduling, the rule that takes it, and the passes that follow the rule.

    `finish` is the text of those passes; `plugins` are the files that rules and passes may be in.
    `weights` are the parameters that are constants in the model, which leaves the caches in the
    state `mode` when it calls the kernel.
    """

    name: str
    func: PrimFunc = field(repr=False)
    rule: ScheduleRule
    target: Target = field(repr=False)
    finish: str = ""
    plugins: tuple[Path, ...] = ()
    weights: tuple[int, ...] = ()
    mode: State = "warm"

    @cached_property
    def match(self) -> Any:
        """The rule's analysis.  Raises InputError if the rule does not take the kernel."""
        found = self.rule.match(self.func, self.target)
        if isinstance(found, NotApplicable):
            raise InputError(f"{self.rule_name} does not take {self.name}: {found.reason}")
        return found

    @cached_property
    def workload(self) -> Described:
        """What it computes, as logs know it."""
        return keys.of_kernel(self.func)

    @property
    def rule_name(self) -> str:
        """The rule as records name it."""
        return plugin.name_of(type(self.rule))

    @property
    def terms(self) -> int:
        """How many products the sums behind one element have, roughly."""
        sizes = [prod(int(extent) for extent in param.shape) for param in self.func.params]
        return max(1, kernel_cost.flops(self.func) // (2 * max(1, sizes[-1])))

    @property
    def dtypes(self) -> list[str]:
        """The types of the parameters."""
        return [str(param.dtype) for param in self.func.params]

    def scheduled(self, point: Point | None) -> PrimFunc:
        """The loop nest at a point, ready for code generation; None leaves it unscheduled."""
        import tvm

        if point is None and self.target.gpu is not None:
            return self._by_fallback()
        if point is None:
            return _passed(tvm.IRModule({"main": self.func}), _REFERENCE, self)
        return _passed(self.rule.schedule(self.match, point).mod, self.finish, self)

    def _by_fallback(self) -> PrimFunc:
        """The loop nest as the rule for everything schedules it: a GPU runs no plain loops."""
        rules = plugin.Catalogue("hybridc.schedules", ScheduleRule)
        rule: Any = rules.create(_GPU_REFERENCE)
        match = rule.match(self.func, self.target)
        return _passed(rule.schedule(match, rule.default(match, self.target)).mod, "", self)

    def compile(self, point: Point | None, library: Path) -> None:
        """Write the kernel at a point as a shared library.

        Raises what rule and code generation raise, and LinkError.
        """
        func = self.scheduled(point)
        if self.target.gpu is not None:
            _check_launches(func, self.target)
        made = build.compile_kernel(func, self.target)
        if self.target.gpu is not None:
            machine_code(library).write_bytes(made.device)
        try:
            with scratch.Folder() as folder:
                made.export_library(str(library), fcompile=link.library, workspace_dir=folder)
        except (RuntimeError, OSError) as error:
            raise LinkError(str(error)) from error

    def save(self, path: Path) -> None:
        """Write what `load` reads; for processes of one machine and one version of TVM."""
        import tvm

        data = {
            "name": self.name,
            "func": tvm.ir.save_json(self.func),
            "rule": plugin.text(self.rule),
            "target": self.target.describe(),
            "finish": self.finish,
            "plugins": [str(file) for file in self.plugins],
            "weights": list(self.weights),
            "mode": self.mode,
        }
        path.write_text(json.dumps(data))

    @classmethod
    def load(cls, path: Path) -> "Kernel":
        """Read a kernel that `save` wrote."""
        import tvm

        data = json.loads(path.read_text())
        files = tuple(map(Path, data["plugins"]))
        rules = plugin.catalogue("hybridc.schedules", ScheduleRule, files)
        return cls(
            data["name"],
            tvm.ir.load_json(data["func"]),
            rules.create(data["rule"]),
            cached_weights.left_by(data["mode"], target.described(data["target"])),
            data["finish"],
            files,
            tuple(data["weights"]),
            data["mode"],
        )


def machine_code(library: Path) -> Path:
    """Where the machine code of a GPU's kernel lies, beside its library."""
    return library.with_suffix(".cubin")


def _check_launches(func: PrimFunc, target: Target) -> None:
    """Raise PassError if a launch is beyond the GPU: it is not even compiled."""
    from hybridc.compiler.cuda import launches

    assert target.gpu is not None
    made = launches.of_kernel(func, target)
    if faults := [fault for launch in made for fault in launch.faults(target.gpu)]:
        raise PassError(f"beyond {target.gpu.name}: {'; '.join(faults)}")


def _passed(module: Any, text: str, kernel: Kernel) -> PrimFunc:
    steps = pipeline.parse(text, pipeline.passes(kernel.plugins))
    return pipeline.run(steps, module, Context(kernel.target))["main"]
