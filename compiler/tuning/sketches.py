"""TVM's own space of a kernel: the sketches of MetaSchedule's rules, their decisions as knobs.

A sketch is a trace, a list of schedule instructions, some of which leave a number open (J. Shao et
al., Tensor Program Optimization with Probabilistic Programs, NeurIPS 2022).  A point says which
sketch and which numbers, so it is of whole numbers as the points of every rule: no trace has to be
kept, and none that a stranger wrote is ever carried out.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import gcd, prod
from typing import Any

from hybridc.compiler import strips
from hybridc.compiler.interfaces import Point, PrimFunc, Schedule, Space
from hybridc.compiler.target import Target

Trace = Any  # tvm.s_tir.Trace; TVM ships no types
Decision = list[int]  # the factors of a tile; the one number of any other decision

SKETCH = "sketch"  # the knob that says which; 0 is none
THREADS = "threads"
_LONGEST = 2**20  # characters of a foreign trace; a kernel of ten stages has some thousand
# Each reduction may be split or not, each product tiled in three ways: the sketches multiply.
_REDUCTIONS, _BLOCKS = 4, 16
_INSIDE = -2  # where a stage is computed: inlined; -1 is before all others, 0 the outermost loop
_KNOBS = {
    "SamplePerfectTile": "tile",
    "SampleCategorical": "unroll",
    "SampleComputeLocation": "place",
}


@dataclass(frozen=True)
class Choice:
    """A number, or the factors of a tile, that a sketch leaves open.

    `index` is the instruction's place in the trace; `values` are those of each knob.  Of a tile the
    knobs are all factors but the outermost, which is what the others leave of `extent`.
    """

    index: int
    knobs: tuple[str, ...]
    values: tuple[tuple[int, ...], ...]
    categories: tuple[int, ...] = ()
    extent: int = 0

    def fitted(self, wanted: Mapping[str, int]) -> list[int]:
        """The knobs as they take effect: factors that divide what is left, known values."""
        if self.extent:
            left, found = self.extent, list[int]()
            for knob in reversed(self.knobs):
                found.append(gcd(wanted[knob], left))
                left //= found[-1]
            return found[::-1]
        ((knob, values),) = zip(self.knobs, self.values, strict=True)
        return [min(values, key=lambda value: abs(value - wanted[knob]))]

    def decision(self, wanted: Mapping[str, int]) -> Decision:
        """TVM's decision for the knobs of a point."""
        found = self.fitted(wanted)
        if self.extent:
            return [self.extent // prod(found), *found]
        return [self.categories.index(found[0])] if self.categories else found

    def knobs_of(self, decision: Decision) -> dict[str, int]:
        """The knobs for TVM's decision.  Raises IndexError for one that is out of range."""
        if self.extent:
            wanted = dict(zip(self.knobs, decision[1:], strict=True))
        else:
            value = self.categories[decision[0]] if self.categories else decision[0]
            wanted = {self.knobs[0]: value}
        return dict(zip(self.knobs, self.fitted(wanted), strict=True))


@dataclass(frozen=True, eq=False)
class Sketch:
    """A trace, what it leaves open, and the schedule that it was found with."""

    trace: Trace = field(repr=False)
    choices: tuple[Choice, ...]
    made: Schedule = field(repr=False)

    @cached_property
    def form(self) -> list[Any]:
        """What a trace of this sketch looks like, whatever was decided."""
        return _form(json.loads(_text(self.trace))[0])

    def decided(self, point: Point) -> Trace:
        """The trace with the decisions of a point."""
        from tvm.s_tir import Trace as Made

        open_ = {choice.index: choice.decision(point) for choice in self.choices}
        decisions: dict[Any, Any] = {}
        for index, instruction in enumerate(self.trace.insts):
            if index in open_:
                factors = instruction.kind.name == "SamplePerfectTile"
                decisions[instruction] = open_[index] if factors else open_[index][0]
        return Made(self.trace.insts, decisions)


@dataclass(frozen=True, eq=False)
class Sketches:
    """The space that TVM has for a kernel; empty if it has none."""

    func: PrimFunc = field(repr=False)
    target: Target = field(repr=False)
    every: tuple[Sketch, ...]

    @cached_property
    def context(self) -> Any:
        """TVM's own view of the kernel."""
        return _context(self.func, self.target)

    def searching(self, seed: int, **search: int) -> Any:
        """A TuneContext of TVM that is ready to search; `search` are options of its evolution."""
        return _context(self.func, self.target, seed, **search)

    @cached_property
    def space(self) -> Space:
        """The knobs: which sketch, and whatever some sketch leaves open."""
        found: dict[str, set[int]] = {}
        for sketch in self.every:
            for choice in sketch.choices:
                for knob, values in zip(choice.knobs, choice.values, strict=True):
                    found.setdefault(knob, set()).update(values)
        knobs = {knob: tuple(sorted(found[knob])) for knob in sorted(found)}
        return {SKETCH: tuple(range(len(self.every) + 1)), **knobs} if self.every else {}

    def canonical(self, point: Point) -> Point:
        """The point with its knobs as they take effect; those without effect at their first."""
        usual = {knob: values[0] for knob, values in self.space.items()}
        for choice in self._choices(point.get(SKETCH, 0)):
            usual.update(zip(choice.knobs, choice.fitted(point), strict=True))
        chosen = {SKETCH: point[SKETCH]} if self.every else {}
        return {THREADS: point[THREADS], **usual, **chosen}

    def schedule(self, point: Point) -> Schedule:
        """The kernel as its sketch makes it; raises ScheduleError if that is not possible."""
        from tvm.s_tir import Schedule as Made
        from tvm.s_tir import ScheduleError

        schedule = Made(self.context.mod, error_render_level="fast")
        sketch = self.every[point[SKETCH] - 1]
        sketch.decided(point).apply_to_schedule(schedule, remove_postproc=True)
        if not point[THREADS]:
            schedule.unannotate(schedule.get_sblock("root"), "meta_schedule.parallel")
        schedule.enter_postproc()
        for step in self.context.space_generator.postprocs:
            if not step.apply(schedule):
                raise ScheduleError(f"{step} refuses the schedule")
        return schedule

    def point(self, trace: str | Trace) -> Point | None:
        """The point of a trace, TVM's or JSON text that is never carried out; None if unknown."""
        text = trace if isinstance(trace, str) else _text(trace.simplified(True))
        if len(text) > _LONGEST:
            return None
        try:
            instructions, decisions = json.loads(text)
            form = _form(instructions)
            decided = {int(index): _numbers(decision) for index, decision in decisions}
            return next(self._points(form, decided), None)
        except (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError):
            return None

    def _points(self, form: list[Any], decided: Mapping[int, Decision]) -> Iterator[Point]:
        for number, sketch in enumerate(self.every, 1):
            if sketch.form == form:
                knobs = {knob: values[0] for knob, values in self.space.items()}
                for choice in sketch.choices:
                    knobs.update(choice.knobs_of(decided[choice.index]))
                yield {THREADS: 1, **knobs, SKETCH: number}

    def _choices(self, number: int) -> Sequence[Choice]:
        return self.every[number - 1].choices if number else ()


def sketches(func: PrimFunc, target: Target) -> Sketches:
    """The sketches of a kernel, always in the same order.

    There are none for a kernel with open sizes, or with so many stages that there would be
    hundreds, or that TVM's rules cannot handle.
    """
    from tvm.error import InternalError
    from tvm.s_tir import ScheduleError

    if not _small(func):
        return Sketches(func, target, ())
    context = _context(func, target)
    found: Sequence[Schedule] = ()
    with contextlib.suppress(InternalError, ScheduleError, RuntimeError, ValueError, TypeError):
        found = context.space_generator.generate_design_space(context.mod)
    return Sketches(func, target, tuple(map(_sketch, found)))


def _context(func: PrimFunc, target: Target, seed: int = 1, **search: int) -> Any:
    """TVM's TuneContext for one thread, made without its constructor.

    That one imports all of TVM's tensor intrinsics, which takes 45 s and serves other rules.
    """
    from tvm.s_tir import meta_schedule
    from tvm.s_tir.meta_schedule import _ffi_api

    rules = meta_schedule.schedule_rule.ScheduleRule.create("llvm")
    custom = meta_schedule.schedule_rule.ApplyCustomRule  # there is none for a CPU, which it tells
    mutators = meta_schedule.mutator.Mutator.create("llvm")
    # It changes how many loops are in parallel, which no knob says.
    parallel = meta_schedule.mutator.MutateParallel
    generator = meta_schedule.space_generator.PostOrderApply(
        sch_rules=[rule for rule in rules if not isinstance(rule, custom)],
        postprocs="llvm",
        mutator_probs={each: p for each, p in mutators.items() if not isinstance(each, parallel)},
    )
    normalized = meta_schedule.tune_context._normalize_mod  # pyright: ignore[reportPrivateUsage]
    module = normalized(func)
    evolution = meta_schedule.search_strategy.EvolutionarySearch(**search)
    args = (module, target.tvm, generator, evolution, "main", 1, seed)
    context = _ffi_api.TuneContext(*args, lambda *_: None)
    _ffi_api.TuneContextInitialize(context)
    return context


def _small(func: PrimFunc) -> bool:
    from tvm import s_tir
    from tvm_ffi import structural_walk

    if strips.has_open_sizes(func):
        return False
    blocks: list[Any] = []
    structural_walk(func.body, (s_tir.SBlock, blocks.append))
    reductions = sum(block.init is not None for block in blocks)
    # Without a root, the kernel is one opaque block, such as a sort, which TVM leaves as it is.
    rooted = any(str(block.name_hint) == "root" for block in blocks)
    return rooted and reductions <= _REDUCTIONS and len(blocks) <= _BLOCKS


def _sketch(schedule: Schedule) -> Sketch:
    trace = schedule.trace.simplified(remove_postproc=True)
    children = schedule.get_child_blocks(schedule.get_sblock("root"))
    deepest = max((len(schedule.get_loops(block)) for block in children), default=0)
    counts: dict[str, int] = {}
    choices: list[Choice] = []
    for index, instruction in enumerate(trace.insts):
        if (kind := _KNOBS.get(instruction.kind.name)) is not None:
            knob = f"{kind}{counts.setdefault(kind, 0)}"
            counts[kind] += 1
            choices.append(_choice(index, knob, trace, deepest))
    return Sketch(trace, tuple(choices), schedule)


def _choice(index: int, knob: str, trace: Trace, deepest: int) -> Choice:
    instruction = trace.insts[index]
    if instruction.kind.name == "SamplePerfectTile":
        decided = _numbers(trace.decisions[instruction])
        extent, widest = prod(decided), int(instruction.attrs[1])
        factors = tuple(n for n in range(1, extent + 1) if extent % n == 0)
        inner = tuple(n for n in factors if n <= widest)
        knobs = tuple(f"{knob}_{i}" for i in range(1, len(decided)))
        return Choice(index, knobs, (*[factors] * (len(knobs) - 1), inner), extent=extent)
    if instruction.kind.name == "SampleCategorical":
        categories = tuple(int(each) for each in instruction.attrs[0])
        return Choice(index, (knob,), (categories,), categories)
    return Choice(index, (knob,), (tuple(range(_INSIDE, deepest)),))


def _numbers(decision: Any) -> Decision:
    """A decision of TVM or of JSON, one number or several."""
    return [int(each) for each in (decision if hasattr(decision, "__len__") else [decision])]


def _form(instructions: Any) -> list[Any]:
    """What was chosen, without the names of blocks, annotations' values, and TVM's finish."""
    kept: list[Any] = []
    for kind, inputs, attributes, outputs in instructions:
        if kind == "EnterPostproc":
            break
        if kind == "Annotate":
            kept.append((kind, inputs[0], attributes))
        elif kind == "GetSBlock" or kind in _KNOBS:
            kept.append((kind, inputs, outputs))
        else:
            kept.append((kind, inputs, attributes, outputs))
    return kept


def _text(trace: Trace) -> str:
    return json.dumps(plain(trace.as_json()))


def plain(data: Any) -> Any:
    """TVM's JSON data as Python's."""
    if isinstance(data, str):
        return str(data)  # TVM's own strings too
    if data is None or isinstance(data, int | float):
        return data
    return [plain(each) for each in data] if hasattr(data, "__len__") else data.value
