"""Which kernels of a model libraries compute: each is measured beside ours, in turns.

Both ways go through all that the model goes through: the passes that are left, code generation, an
artifact and a session.  An answer that differs from the reference is no candidate, however fast.
"""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import tvm
from tvm import relax

from hybridc.compiler import pipeline, plugin
from hybridc.compiler.artifacts.artifact import Artifact
from hybridc.compiler.building.build import ALIGNMENT, Built, begin
from hybridc.compiler.configuration.plans import Plan
from hybridc.compiler.cuda import timing
from hybridc.compiler.errors import HybridcError, first_line
from hybridc.compiler.hardware import host
from hybridc.compiler.interfaces import Context, IRModule, Pass
from hybridc.compiler.ir.evaluate import evaluate
from hybridc.compiler.log.advisers import MakeAdviser
from hybridc.compiler.measurement import measure
from hybridc.compiler.measurement.clock import Clock
from hybridc.compiler.model import Array, TensorSpec, random_feed
from hybridc.compiler.offload import match
from hybridc.compiler.offload.backend import OWN, Backend
from hybridc.compiler.offload.calls import Offload
from hybridc.compiler.offload.match import Found
from hybridc.compiler.offload.subgraph import Subgraph
from hybridc.compiler.reporting.report import BACKENDS
from hybridc.compiler.runtime.session import InferenceSession
from hybridc.compiler.text.units import format_duration, format_durations
from hybridc.compiler.tuning.candidates import answers

PASS = "offload"
_SECONDS = 0.5  # in which the ways of one kernel are compared
# A library has to be so much faster: its threads and ours hinder each other between kernels, and
# a call from outside costs what the timing of one kernel alone does not show.
_MARGIN = 0.05
# By which a GPU computes what is right: no CPU does a large product of 16-bit types in a minute.
_PLAIN = "cuda-fallback"


@dataclass(frozen=True)
class Verdict:
    """What came of one subgraph: seconds by backend, and why others were not measured."""

    graph: Subgraph
    calls: int
    seconds: Mapping[str, float]
    refused: Mapping[str, str]

    @property
    def backend(self) -> str:
        """The fastest; ours within the margin."""
        best = min(self.seconds, key=lambda name: self.seconds[name])
        return best if self.seconds[best] < (1 - _MARGIN) * self.seconds[OWN] else OWN

    def told(self) -> str:
        """`matmul 128x768 x12: tvm 410 us, onednn 380 us`."""
        written = format_durations(list(self.seconds.values()))
        times = [f"{name} {time}" for name, time in zip(self.seconds, written, strict=True)]
        times += [f"{name}: {reason}" for name, reason in self.refused.items()]
        shape = "x".join(map(str, self.graph.result.shape))
        kinds = "+".join(name.rpartition(".")[2] for name in self.graph.operators)
        return f"{kinds} {shape} x{self.calls}: {', '.join(times)}"


@dataclass(frozen=True)
class MeasureBackends:
    """An instrument that measures a module's kernels when the pass that gives them away comes.

    What it finds stands in the context's `backends`, and in its notes.
    """

    plan: Plan
    context: Context
    make: MakeAdviser
    clock: Clock

    def before(self, step: Pass, module: IRModule) -> None:
        """Measure, if this is the pass."""
        if plugin.name_of(type(step)) != PASS:
            return
        found = list(match.find(module, getattr(step, "attention", False)))
        groups: dict[str, list[Found]] = {}
        for each in found:
            groups.setdefault(each.graph.key, []).append(each)
        rest = self.plan.steps[self.plan.steps.index(step) :]
        if self.context.advice is not None and self.context.advice.library("") is not None:
            self._locked(groups)
            return
        with self.clock.stage("measure backends"):
            verdicts = self._judged(list(groups.values()), rest)
        chosen = {each.graph.key: each.backend for each in verdicts if each.backend != OWN}
        self.context.backends = {**self.context.backends, **chosen}
        self.context.notes += [f"{BACKENDS} {each.told()}" for each in verdicts]

    def _locked(self, keys: Iterable[str]) -> None:
        """Take what a lock says; nothing is measured."""
        assert self.context.advice is not None
        settled = {key: self.context.advice.library(key) for key in keys}
        chosen = {key: name for key, name in settled.items() if name not in (None, OWN)}
        self.context.backends = {**self.context.backends, **chosen}

    def after(self, step: Pass, before: IRModule, after: IRModule) -> None:
        """Nothing to do."""

    def _judged(self, groups: Sequence[Sequence[Found]], rest: Sequence[Pass]) -> list[Verdict]:
        """The ways of equal kernels, measured on the first; nothing where nobody else has one."""
        benches = [_Bench(group, rest, self.plan, self.make) for group in groups]
        benches = [bench for bench in benches if bench.able]
        on_gpu = self.plan.target.gpu is not None
        together = [benches] if on_gpu else [[bench] for bench in benches]
        verdicts: list[Verdict] = []
        for each in together:
            self._tell(len(verdicts), len(benches))
            _prepare(each, host.cores() if on_gpu else 1)
            for bench in each:
                self._tell(len(verdicts), len(benches))
                verdicts.append(bench.verdict())
        return verdicts

    def _tell(self, done: int, count: int) -> None:
        """Say which kernel's turn it is; raises where the budget has ended."""
        self.clock.tell(f"measure backends, kernel {done + 1} of {count}")


def _prepare(benches: Sequence["_Bench"], workers: int) -> None:
    """Build all ways; what compilers for a GPU take seconds for is done beside the rest."""
    with ThreadPoolExecutor(workers) as pool:
        for bench in benches:
            bench.prepare(pool)
        for bench in benches:
            bench.gather()


class _Bench:
    """One kernel as a model of its own, by our kernels and by libraries."""

    def __init__(
        self, group: Sequence[Found], rest: Sequence[Pass], plan: Plan, make: MakeAdviser
    ) -> None:
        """Of equal kernels the first is measured."""
        self._rest, self._plan, self._make = rest, plan, make
        self._graph, self._found, self._calls = group[0].graph, group[0], len(group)
        self._output = TensorSpec("y", self._graph.result.shape, self._graph.result.dtype)
        self._artifacts: dict[str, Artifact] = {}
        self._refused: dict[str, str] = {}
        self.able: list[Backend] = []
        for backend in plan.backends:
            why = backend.supports(self._graph, plan.target)
            if why is None:
                self.able.append(backend)
            else:
                self._refused[plugin.name_of(type(backend))] = why.reason

    def prepare(self, pool: Executor) -> None:
        """Begin to build our way and the libraries', and what computes what is right."""
        self._module, self._inputs = alone(self._found)
        self._feed = random_feed(self._inputs, self._plan.options.seed)
        names = [plugin.name_of(type(backend)) for backend in self.able]
        self._built = {OWN: self._begun({}, pool)}
        for name in names:
            try:
                self._built[name] = self._begun({self._graph.key: name}, pool)
            except HybridcError as error:
                self._refused[name] = first_line(error)
        if self._plan.target.gpu is not None:
            self._built[_PLAIN] = self._begun({}, pool, plain=True)

    def gather(self) -> None:
        """Wait for what was begun."""
        begun, self._built = self._built, {}
        for name, made in begun.items():
            try:
                self._artifacts[name] = made.result()
            except HybridcError as error:
                if name in (OWN, _PLAIN):
                    raise
                self._refused[name] = first_line(error)

    def verdict(self) -> Verdict:
        """Seconds by name, and who failed, is wrong or too slow; lets go what was built."""
        right = self._right()
        sessions = {OWN: self._session(OWN)}
        (first,) = map(median, self._timed([sessions[OWN]], _SECONDS / 4))
        for backend in self.able:
            name = plugin.name_of(type(backend))
            if name not in self._artifacts:
                continue
            if (least := self._least(backend)) > first:
                self._refused[name] = f"takes {format_duration(least)} at least"
                continue
            try:
                session = self._session(name)
                if wrong := self._wrong(session, right):
                    self._refused[name] = wrong
                else:
                    sessions[name] = session
            except HybridcError as error:
                self._refused[name] = first_line(error)
        times = map(median, self._timed(list(sessions.values()), _SECONDS))
        seconds = dict(zip(sessions, times, strict=True))
        self._artifacts.clear()
        return Verdict(self._graph, self._calls, seconds, self._refused)

    def _timed(
        self, sessions: Sequence[InferenceSession], seconds: float
    ) -> list[tuple[float, ...]]:
        """Durations of a call of each session; on a GPU without copies and launches."""
        if self._plan.target.gpu is not None:
            return timing.in_turns([session.on_device(self._feed) for session in sessions])
        calls = list(map(self._call, sessions))
        if len(calls) == 1:
            return [measure.latency(calls[0], seconds=seconds).seconds]
        return measure.in_turns(calls, seconds=seconds)

    def _least(self, backend: Backend) -> float:
        """Seconds that no library undercuts, were the machine twice as fast as it is known to be.

        Nobody may have probed it, and clocks differ by that much.
        """
        return backend.overhead + 0.5 * (
            backend.cost(self._graph, self._plan.target) - backend.overhead
        )

    def _call(self, session: InferenceSession) -> Any:
        return lambda: session.run(None, self._feed)

    def _right(self) -> Array:
        """What the unscheduled kernel computes."""
        if _PLAIN in self._artifacts:
            (found,) = self._session(_PLAIN).run(None, self._feed)
        else:
            given = [self._feed[spec.name] for spec in self._inputs]
            (found,) = evaluate(self._module, given, native=True)
        return np.asarray(found)

    def _wrong(self, session: InferenceSession, right: Array) -> str | None:
        (got,) = session.run(None, self._feed)
        depth = self._graph.flops // (2 * max(1, right.size))
        return answers.difference(got, right, max(1, depth))

    def _session(self, name: str) -> InferenceSession:
        return InferenceSession(self._artifacts[name], self._plan.target.threads)

    def _begun(
        self, backends: Mapping[str, str], pool: Executor, *, plain: bool = False
    ) -> "Future[Artifact]":
        plan = self._plan
        rules, advice = plan.rules, None if plain else self._make(plan.target)
        if plain:
            rules = tuple(rule for rule in rules if plugin.name_of(type(rule)) == _PLAIN)
        context = Context(plan.target, rules, advice, backends=backends)
        module = pipeline.run(self._rest, self._module, context)
        begun = begin(module, plan.target, [each.name for each in context.offloads])
        return pool.submit(lambda: self._artifact(begun.finish(), tuple(context.offloads)))

    def _artifact(self, built: Built, offloads: tuple[Offload, ...]) -> Artifact:
        plan = self._plan
        return Artifact(
            name=self._graph.anchor.operator,
            inputs=self._inputs,
            outputs=(self._output,),
            target=plan.target.describe(),
            pipeline=pipeline.text(self._rest),
            library=built.library,
            weights=built.weights,
            alignment=ALIGNMENT,
            device=built.device,
            offloads=offloads,
            plugins=tuple(plan.options.plugins),
        )


def alone(found: Found) -> tuple[IRModule, tuple[TensorSpec, ...]]:
    """A module that computes a subgraph and nothing else, with its constants; and its inputs."""
    graph = found.graph
    params = {number: relax.Var(f"x{number}", found.operands[number].ty) for number in graph.inputs}
    replaced = {found.operands[number]: var for number, var in params.items()}
    builder = relax.BlockBuilder()
    with builder.function("main", list(params.values())):
        with builder.dataflow():
            for binding in found.bindings:
                call = binding.value
                operands = [replaced.get(arg, arg) for arg in call.args]
                same = tvm.ir.Call(call.op, operands, call.attrs, call.ty_args)
                replaced[binding.var] = builder.emit(same)
            result = builder.emit_output(replaced[found.result])
        builder.emit_func_output(result)
    values = ((number, graph.operands[number]) for number in graph.inputs)
    specs = tuple(TensorSpec(f"x{number}", each.shape, each.dtype) for number, each in values)
    return builder.get(), specs
