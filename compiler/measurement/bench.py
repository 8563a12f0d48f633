"""Set peers side by side on one model: each in its own process, in turn, on the same inputs.

A round times every contender once, one after the other (A B A B …), so that what changes on the
machine changes for all of them; ratios are taken within a round.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hybridc.compiler.errors import InputError
from hybridc.compiler.hardware import host, load
from hybridc.compiler.hardware.load import Load
from hybridc.compiler.measurement.measure import Samples
from hybridc.compiler.measurement.peer import peers
from hybridc.compiler.measurement.worker import PeerError, Worker
from hybridc.compiler.model import TensorSpec
from hybridc.compiler.monitoring.monitored import Monitored
from hybridc.compiler.monitoring.timeline import Timeline
from hybridc.compiler.text.tables import table
from hybridc.compiler.text.units import format_durations

# Seconds of calls that are not counted, before each turn: caches and clocks settle.
WARMUP = 0.1


@dataclass(frozen=True)
class Contender:
    """A peer, as the text that builds it (`openvino{precision=bf16}`), and its model file.

    `plugins` are files with backends that an artifact needs.
    """

    peer: str
    model: Path
    plugins: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Plan:
    """How to compare: threads of each contender, rounds, seconds of a turn, seed of the inputs."""

    threads: int
    rounds: int = 7
    seconds: float = 0.5
    seed: int = 0


@dataclass(frozen=True)
class Result:
    """What one contender took: all its samples, and the median of each round in seconds."""

    peer: str
    versions: Mapping[str, str]
    samples: Samples
    rounds: tuple[float, ...]

    def ratio(self, baseline: "Result") -> float:
        """Time relative to `baseline`: the median of the ratios within each round."""
        return statistics.median(
            own / other for own, other in zip(self.rounds, baseline.rounds, strict=True)
        )


@dataclass(frozen=True)
class Comparison:
    """All results, the first of which is the baseline of the ratios.

    `skipped` gives the reason for each peer that could not take part; `busy` is how many cores
    programs other than the contenders used, as the median over the turns.  `monitored` is what a
    monitor saw, where there was one.
    """

    results: tuple[Result, ...]
    skipped: Mapping[str, str]
    threads: int
    busy: float
    monitored: Monitored | None = None

    @property
    def quiet(self) -> bool:
        """Whether other programs left the machine to the contenders."""
        return self.busy <= load.QUIET

    def to_json(self) -> dict[str, Any]:
        """The comparison as JSON data; times in milliseconds."""
        seen = {} if self.monitored is None else {"monitor": self.monitored.to_json()}
        return {
            "machine": host.cpu_model(),
            "threads": self.threads,
            "busy_cores": self.busy,
            "quiet": self.quiet,
            "results": [self._entry(result) for result in self.results],
            "skipped": dict(self.skipped),
            **seen,
        }

    def _entry(self, result: Result) -> dict[str, Any]:
        return {
            "peer": result.peer,
            "versions": dict(result.versions),
            **result.samples.to_json(),
            "round_medians_ms": [median * 1e3 for median in result.rounds],
            "ratio": result.ratio(self.results[0]),
        }

    def text(self) -> str:
        """The comparison as a table, with what one must know to judge it."""
        times = format_durations([result.samples.median for result in self.results])
        rows = list(map(self._row, self.results, times))
        ratio = f"ratio to {self.results[0].peer}" if self.results else "ratio"
        lines = [
            f"{host.cpu_model()}, {self.threads} threads; each peer in its own process, in turn",
            table(("peer", "median", "spread", ratio, "versions"), rows),
            *(f"{peer} was left out: {reason}" for peer, reason in self.skipped.items()),
        ]
        if not self.quiet:
            lines.append(
                f"warning: other programs kept {self.busy:.1f} cores busy; trust none of these"
            )
        if self.monitored is not None:
            lines.append(self.monitored.text())
        return "\n".join(lines)

    def _row(self, result: Result, time: str) -> tuple[str, ...]:
        versions = ", ".join(f"{package} {number}" for package, number in result.versions.items())
        ratio = result.ratio(self.results[0])
        return result.peer, time, f"{result.samples.spread:.1%}", f"{ratio:.3f}", versions


def contenders(
    names: Sequence[str], models: Sequence[Path], plugins: tuple[Path, ...] = ()
) -> tuple[list[Contender], dict[str, str]]:
    """Give each peer the first model file that it can load; return also who must be left out.

    Raises PluginError for a peer that does not exist.
    """
    taking_part: list[Contender] = []
    skipped: dict[str, str] = {}
    for name in names:
        kind = type(peers().create(name))
        fitting = [path for path in models if path.suffix in kind.suffixes]
        if missing := kind.missing():
            skipped[name] = f"{', '.join(missing)} not installed: pip install 'hybridc[bench]'"
        elif not fitting:
            skipped[name] = f"it needs a {' or '.join(kind.suffixes)} file; give one with --model"
        else:
            taking_part.append(Contender(name, fitting[0], plugins))
    return taking_part, skipped


def compare(  # noqa: PLR0913 - what is compared, and who is told
    taking_part: Sequence[Contender],
    inputs: Sequence[TensorSpec],
    plan: Plan,
    skipped: Mapping[str, str] | None = None,
    *,
    progress: Callable[[str], None] = lambda _: None,
    timeline: Timeline | None = None,
) -> Comparison:
    """Time the contenders in turn; one that fails to load is left out, with its reason.

    Each turn goes on the timeline.

    Raises InputError if none is left, PeerError if one fails after it had loaded.
    """
    left_out = dict(skipped or {})
    with ExitStack() as stack:
        workers: list[Worker] = []
        for contender in taking_part:
            progress(f"loading {contender.peer}")
            started = Worker(contender.peer, contender.model, contender.plugins)
            worker = stack.enter_context(started)
            try:
                worker.prepare(inputs, plan.threads, plan.seed)
                workers.append(worker)
            except PeerError as error:
                left_out[contender.peer] = str(error)
        if not workers:
            reasons = "; ".join(f"{peer}: {reason}" for peer, reason in left_out.items())
            raise InputError(f"no peer can run this model: {reasons}")
        results, busy = _rounds(workers, plan, progress, timeline or Timeline())
    return Comparison(results, left_out, plan.threads, busy)


def _rounds(
    workers: Sequence[Worker],
    plan: Plan,
    progress: Callable[[str], None],
    timeline: Timeline,
) -> tuple[tuple[Result, ...], float]:
    """Let each worker take its turn in each round; also tell how busy others kept the machine."""
    taken: list[list[Samples]] = [[] for _ in workers]
    busy: list[float] = []
    load.come_to_rest()  # threads that spin after loading
    for index in range(plan.rounds):
        progress(f"round {index + 1} of {plan.rounds}")
        for worker, samples in zip(workers, taken, strict=True):
            watch = Load()
            with timeline.span(worker.peer, "stage"):
                samples.append(worker.sample(plan.seconds, WARMUP))
            load.come_to_rest()
            busy.append(watch.others())
    results = tuple(map(_result, workers, taken))
    return results, statistics.median(busy)


def _result(worker: Worker, turns: Sequence[Samples]) -> Result:
    samples = Samples(tuple(second for turn in turns for second in turn.seconds))
    versions = type(peers().create(worker.peer)).versions()
    return Result(worker.peer, versions, samples, tuple(turn.median for turn in turns))
