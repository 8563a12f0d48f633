"""What a plug-in author implements: read this page, then write one file.

`Pass` rewrites a whole module, `ScheduleRule` makes one kernel fast.  Both are frozen dataclasses
whose fields are their options; the file's name is the plug-in's name (`fold_batch_norm.py` holds
`FoldBatchNorm`, known as `fold-batch-norm`).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from hybridc.compiler.target import Target

IRModule = Any  # tvm.ir.IRModule; TVM ships no types
PrimFunc = Any  # tvm.tirx.PrimFunc
Schedule = Any  # tvm.s_tir.Schedule

Point = Mapping[str, int]
Space = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class KernelRecord:
    """How one kernel was scheduled: the rule and point that won, and why other rules did not.

    `flops` and `bytes` are of one call: what it computes, and the size of its arguments;
    `precision` (fp32, bf16, int8) is what its products are multiplied in.  `workload` is the key
    of what it computes (see `log.keys`), empty where it has none.
    """

    kernel: str
    rule: str
    point: Point
    refused: Mapping[str, str]
    flops: int = 0
    bytes: int = 0
    precision: str = "fp32"
    workload: str = ""


Usable = Callable[[str, Point], str | None]  # why a rule's point cannot be used, or None


class Advice(Protocol):
    """Knows rules and points for kernels that somebody measured: a tuning log, a schedule lock."""

    def choose(self, kernel: str, workload: str, usable: Usable) -> tuple[str, Point] | None:
        """The rule and the point for a kernel by its workload key, or None where none is known.

        `usable` says of a rule and a point why they do not do for this kernel.
        """
        ...

    def missed(self, kernel: str) -> None:
        """Hear that a kernel got its rule's default, though it had a choice."""
        ...


@dataclass
class Context:
    """What a pass may read besides the module, and where it says what it did.

    `advice` goes before the defaults of rules.  `kernels` collects one record for each kernel
    scheduled; `notes` goes into the report.
    """

    target: Target
    rules: tuple["ScheduleRule", ...] = ()
    advice: Advice | None = None
    kernels: list[KernelRecord] = field(default_factory=list[KernelRecord])
    notes: list[str] = field(default_factory=list[str])


@dataclass(frozen=True)
class Pass(ABC):
    """Rewrites a module; its dataclass fields are its options, its docstring is its help."""

    def requires(self, module: IRModule) -> None:  # noqa: B027 - optional hook
        """Raise PassError if the module is not what this pass needs."""

    @abstractmethod
    def apply(self, module: IRModule, context: Context) -> IRModule:
        """Return the rewritten module; never change the one given."""

    def ensures(self, module: IRModule) -> None:  # noqa: B027 - optional hook
        """Raise PassError if the result is not what this pass promises."""

    def exact(self) -> "Pass":
        """The same pass without what rounds differently from the operators of the model."""
        return self


@dataclass(frozen=True)
class NotApplicable:
    """A rule's answer to a kernel that is not its kind; `reason` completes "because …"."""

    reason: str


@dataclass(frozen=True)
class Match:
    """A kernel that a rule takes; rules extend it by what their analysis found."""

    func: PrimFunc
    target: Target


@dataclass(frozen=True)
class ScheduleRule(ABC):
    """Schedules one kind of kernel.

    The default point comes from analysis alone, never from a measurement; a tuner searches the
    same space, so a tuning record is the rule's name and a point.
    """

    priority: ClassVar[int]  # rules are asked from high to low; no two rules share one

    @abstractmethod
    def match(self, func: PrimFunc, target: Target) -> Any:
        """Return a Match (or a subclass of it), or NotApplicable with the reason."""

    @abstractmethod
    def knobs(self, match: Any) -> Space:
        """The values that each knob may take for this kernel."""

    @abstractmethod
    def default(self, match: Any, target: Target) -> Point:
        """Choose a point of `knobs(match)` from shapes and target."""

    @abstractmethod
    def schedule(self, match: Any, point: Point) -> Schedule:
        """Apply the point; the kernel computes the same function as before."""
