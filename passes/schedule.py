"""Schedule each kernel at the point that was measured to be best, else at its rule's default."""

from dataclasses import dataclass, field
from math import prod

import tvm
from tvm import tirx
from tvm_ffi import structural_walk

from hybridc.compiler import plugin, strips
from hybridc.compiler.aot import worth
from hybridc.compiler.errors import PassError, described
from hybridc.compiler.hardware import cached_weights
from hybridc.compiler.interfaces import (
    Context,
    IRModule,
    NotApplicable,
    Pass,
    Point,
    PrimFunc,
    ScheduleRule,
    Space,
)
from hybridc.compiler.ir.rewrite import updated
from hybridc.compiler.kernel_record import KernelRecord, State, faulty
from hybridc.compiler.kernels import kernel_cost
from hybridc.compiler.log import keys
from hybridc.compiler.target import Target
from hybridc.compiler.text.units import format_point


@dataclass(frozen=True)
class Schedule(Pass):
    """Schedule each kernel at the point that was measured to be best, else at its rule's default.

    The context's advice knows what was measured; where it knows nothing of a kernel, the first rule
    that matches the kernel schedules it at its default point.  The context's kernels then record
    the rule and the point of each kernel, and why the rules that were asked before did not apply.
    A rule that raises counts as not applicable, and a note says so.

    A kernel with open sizes is cut into strips of fixed size along every axis that allows it; rules
    schedule the strips, and each has a record of its own.
    """

    def apply(self, module: IRModule, context: Context) -> IRModule:
        """Schedule every loop nest that is not scheduled yet."""
        mode = cached_weights.state(cached_weights.weight_bytes(module), context.target)
        expected = cached_weights.left_by(mode, worth.expected(module, context.target))
        scheduled = {
            var: _Kernel(var.name_hint, func, context, mode, expected).timed()
            for var, func in module.functions_items()
            if isinstance(func, tirx.PrimFunc) and "tirx.is_scheduled" not in func.attrs
        }
        return updated(module, scheduled) if scheduled else module


@dataclass(frozen=True)
class _Kernel:
    """One kernel on its way to a rule, in a model that leaves the caches in the state `mode`.

    `expected` is the target with the threads and caches that kernels find, for default points;
    `tried` keeps what came of the points that were advised.
    """

    name: str
    func: PrimFunc
    context: Context
    mode: State
    expected: Target
    tried: dict[str, PrimFunc] = field(default_factory=dict[str, PrimFunc])

    def timed(self) -> PrimFunc:
        """The kernel scheduled, and what was chosen on the timeline."""
        with self.context.timeline.span(self.name, "kernel") as facts:
            marks = {"tirx.is_scheduled": True, "global_symbol": self.name}
            if self.expected.threads < self.context.target.threads:
                marks[worth.ALONE] = True
            done = self._scheduled().with_attrs(marks)
            chosen = self.context.kernels[-1]
            facts.update(rule=chosen.rule, point=dict(chosen.point), refused=dict(chosen.refused))
        return done

    def _scheduled(self) -> PrimFunc:
        """The kernel, or the strips that make it up, as rules make it."""
        cuts = strips.cuts(self.func)
        if not cuts:
            arithmetic = kernel_cost.flops(self.func)
            return self._chosen().with_attr(kernel_cost.ARITHMETIC, arithmetic)
        pieces = [
            strips.Scheduled(each, self._of(each, self._called(i, each))._chosen())
            for i, each in enumerate(cuts)
        ]
        return strips.join(self.func, pieces, self.context.target.threads)

    def _of(self, strip: strips.Strip, name: str) -> "_Kernel":
        return _Kernel(name, strip.func, self.context, self.mode, self.expected)

    def _called(self, number: int, strip: strips.Strip) -> str:
        """The first strip goes by the kernel's name; shorter ones tell their sizes."""
        return f"{self.name}/{'x'.join(map(str, strip.sizes))}" if number else self.name

    def _chosen(self) -> PrimFunc:
        """The kernel as the advised rule makes it, else the first rule that takes it.

        Raises PassError if none does.
        """
        workload = _workload(self.func)
        advised = self._advised(workload)
        refused: dict[str, str] = {}
        for rule in self.context.rules:
            rule_name = plugin.name_of(type(rule))
            if advised is not None and advised[0] == rule_name:
                return self._record(advised, self.tried[_text(*advised)], refused, workload)
            try:
                taken = _take(rule, self.func, self.expected)
            except Exception as error:  # a kernel that a rule stumbles over is left to the next
                refused[rule_name] = f"it failed: {described(error)}"
                note = f"rule {rule_name} on kernel {self.name}: {refused[rule_name]}"
                self.context.notes.append(note)
                continue
            if isinstance(taken, NotApplicable):
                refused[rule_name] = taken.reason
            elif advised is not None:
                refused[rule_name] = f"{advised[0]} was measured to be faster"
            elif fault := self._fault(workload, rule_name, taken.point):
                refused[rule_name] = fault
            else:
                self._tell_missed(taken.space)
                return self._record((rule_name, taken.point), taken.done, refused, workload)
        raise PassError(f"no schedule rule takes kernel {self.name}: {refused}")

    def _advised(self, workload: str) -> tuple[str, Point] | None:
        if self.context.advice is None or not workload:
            return None
        return self.context.advice.choose(self.name, workload, self._usable, self.mode)

    def _usable(self, rule_name: str, point: Point) -> str | None:
        """Why a point that was measured does not do here; where it does, keep what it makes."""
        known = {plugin.name_of(type(rule)): rule for rule in self.context.rules}
        if rule_name not in known:
            return f"no rule is named {rule_name!r}"
        rule = known[rule_name]
        try:
            match = rule.match(self.func, self.context.target)
            if isinstance(match, NotApplicable):
                return f"{rule_name} does not take the kernel: {match.reason}"
            if not _in_space(point, rule.knobs(match)):
                return f"{_text(rule_name, point)} is no longer a point of its space"
            done = rule.schedule(match, point).mod["main"]
            if faults := _faults(done, self.context.target):
                return f"{_text(rule_name, point)} is beyond the GPU: {faults}"
            self.tried[_text(rule_name, point)] = done
        except Exception as error:  # as above: whatever is wrong, another point may do
            return f"{_text(rule_name, point)} failed: {described(error)}"
        return None

    def _fault(self, workload: str, rule: str, point: Point) -> str:
        """How a rule's default was measured to fail, which a note tells; empty if it was not."""
        advice = self.context.advice
        fault = advice.fault(workload, rule, point) if advice is not None and workload else None
        if fault is None:
            return ""
        named = faulty(self.name, rule, point, fault)
        told = f"{named}; it is left to another rule; please report it with the model"
        self.context.notes.append(told)
        return f"its default was measured to fail: {fault}"

    def _tell_missed(self, space: Space) -> None:
        if self.context.advice is not None and prod(map(len, space.values())) > 1:
            self.context.advice.missed(self.name)

    def _record(
        self, chosen: tuple[str, Point], done: PrimFunc, refused: dict[str, str], workload: str
    ) -> PrimFunc:
        part = strips.is_strip(self.func)  # how many parts a call has, nobody knows yet
        costs = kernel_cost.flops(self.func), kernel_cost.traffic(self.func)
        costs = (0, 0) if part else costs
        precision = kernel_cost.precision(self.func)
        launches = _launches(self.name, done, self.context.target)
        record = KernelRecord(self.name, *chosen, refused, *costs, precision, workload, launches)
        self.context.kernels.append(record)
        return done


@dataclass(frozen=True)
class _Taken:
    """A rule's space and default point for a kernel, and what the point makes of it."""

    space: Space
    point: Point
    done: PrimFunc


def _take(rule: ScheduleRule, func: PrimFunc, target: Target) -> _Taken | NotApplicable:
    match = rule.match(func, target)
    if isinstance(match, NotApplicable):
        return match
    point = rule.default(match, target)
    done = rule.schedule(match, point).mod["main"]
    if faults := _faults(done, target):
        return NotApplicable(f"its default is beyond the GPU: {faults}")
    return _Taken(rule.knobs(match), point, done)


def _faults(func: PrimFunc, target: Target) -> str:
    """What of a GPU's limits a scheduled kernel breaks; nothing on a CPU, which has none."""
    if target.gpu is None:
        return ""
    from hybridc.compiler.cuda import launches

    found = launches.of_kernel(func, target)
    if not found and not _stores_nothing(func):
        return "no part of it is bound to threads"
    return "; ".join(fault for launch in found for fault in launch.faults(target.gpu))


def _stores_nothing(func: PrimFunc) -> bool:
    """Whether all that a kernel stores to has no elements; what it calls may store anything."""
    stores: list[tirx.BufferStore] = []
    structural_walk(func.body, (tirx.BufferStore, stores.append))
    return bool(stores) and all(
        any(isinstance(extent, tirx.IntImm) and int(extent) == 0 for extent in store.buffer.shape)
        for store in stores
    )


def _launches(name: str, func: PrimFunc, target: Target) -> tuple[dict[str, object], ...]:
    """The launches of a kernel as JSON data, under the names that they get in the library."""
    if target.gpu is None:
        return ()
    from hybridc.compiler.cuda import launches

    named = func.with_attr("global_symbol", name)
    found = launches.of_module(tvm.IRModule({name: named}), target)
    return tuple(launch.describe() for launch in found)


def _workload(func: PrimFunc) -> str:
    """The kernel's workload key; empty if the canonical form has no words for the kernel."""
    try:
        return keys.of_kernel(func).key
    except PassError:
        return ""


def _in_space(point: Point, space: Space) -> bool:
    return point.keys() == space.keys() and all(point[knob] in space[knob] for knob in space)


def _text(rule: str, point: Point) -> str:
    return f"{rule}{{{format_point(dict(sorted(point.items())))}}}"
