"""What tuning gains: whole models, and kernels beside MetaSchedule.

    python benchmarks/tuning.py models [--models resnet-18,MY.onnx] [--trials 32] [--caches warm]
    python benchmarks/tuning.py kernels [--kernels NAME,...] [--trials 16] [--baseline 512]

What was tuned is kept in logs under build/tuning, and is not measured again when a part is
repeated.  What MetaSchedule found is in benchmarks/data/metaschedule.json (see metaschedule.py).
"""

import argparse
import datetime
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import command_line
import markdown
import metaschedule
import side_by_side
import tuning_kernels
from command_line import count
from metaschedule import Search
from side_by_side import Times
from tuning_kernels import Kernel as Operator

from hybridc.compiler import driver, pipeline, settings, target
from hybridc.compiler.configuration import plans
from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.log import access, keys
from hybridc.compiler.log.lookup import Hit
from hybridc.compiler.tuning import session, strategies, tasks
from hybridc.compiler.tuning.candidates.pool import Pool
from hybridc.compiler.tuning.kernel import Kernel
from hybridc.compiler.tuning.options import Algorithms, Budget, Caches, Tuning
from hybridc.compiler.tuning.tuner import Tuner

THREADS = 2
LOGS = Path(__file__).parent.parent / "build" / "tuning"
_MODELS = "resnet-18,bert-base"
_GOAL = 0.97  # of the time that the models of _MODELS take without tuning
_NOT_SLOWER = 1.01  # for any other: 1, and what two runs of one artifact differ by
_LEAST = 20.0  # seconds for which a model is timed: a guest's pace changes within seconds
_SHARE = 0.9  # of the kernels shall be as fast as MetaSchedule's


def main() -> None:
    """Measure one part and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Plain)
    parser.add_argument("part", choices=("models", "kernels"))
    parser.add_argument("--models", default=_MODELS, help="models: these alone, or files")
    parser.add_argument("--kernels", help="kernels: these alone")
    parser.add_argument("--trials", type=count, help="of each kernel")
    caches = "models: what kernels find in the caches while they are measured"
    parser.add_argument("--caches", choices=("auto", "warm", "cold"), default="auto", help=caches)
    parser.add_argument(
        "--baseline", type=count, default=512, help="kernels: MetaSchedule's trials"
    )
    options = parser.parse_args()
    settings.set_runtime_threads(THREADS)
    LOGS.mkdir(parents=True, exist_ok=True)
    if options.part == "models":
        markdown.show(whole_models(options.models.split(","), options.trials or 32, options.caches))
    else:
        kernels = metaschedule.named(options.kernels)
        markdown.show(beside_metaschedule(kernels, options.trials or 16, options.baseline))


class _Plain(argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of the description."""


def whole_models(names: Sequence[str], trials: int, caches: Caches) -> Iterator[str]:
    """Tune models; run each as tuned and as compiled without a log, in turn."""
    times = ("without tuning, ms", "tuned, ms", "ratio", "goal")
    changes = ("kernels changed", "their ratio in the model", "measured")
    yield markdown.head(("model", "trials a kernel", *times, *changes))
    for name in names:
        yield from _whole_model(name, Tuning(trials, caches=caches))


def _whole_model(name: str, how: Tuning) -> Iterator[str]:
    """A model's row, and the note on it."""
    path = _file(name)
    log = LOGS / f"{path.stem}-{how.caches}.sqlite"
    options = Options(log=str(log), threads=THREADS, progress=_told)
    algorithms = Algorithms(how)
    done = session.tune(
        [driver.unscheduled(path, options, algorithms=algorithms)],
        options,
        how,
        algorithms=algorithms,
    )
    times = _models_in_turn(path, log)
    (placed,) = done.models
    ratio = times.ratio("tuned", "default")
    goal = _GOAL if name in _MODELS.split(",") else _NOT_SLOWER
    cells = [
        *(path.stem, str(how.trials)),
        *(f"{times.median(each) * 1e3:.2f}" for each in ("default", "tuned")),
        f"{ratio:.3f}{' **missed**' if ratio > goal else ''}",
        *(f"≤ {goal}", f"{placed.changed} of {len(done.kernels)}"),
        f"{placed.best / placed.default:.3f}",
        str(datetime.date.today()),
    ]
    tuned = done.tuned
    note = f"* {path.stem}: {tuned.measured} points measured in {tuned.seconds / 60:.1f} minutes, "
    note += f"until {tuned.reason}, caches {how.caches}; machine's drift {tuned.drift:+.1%}."
    yield markdown.row(cells)
    yield note


def _file(name: str) -> Path:
    """One of the project's own models, or a user's file."""
    import models

    return Path(name) if Path(name).suffix else models.onnx_file(name, 1)


def _models_in_turn(path: Path, log: Path) -> Times:
    """Seconds of the model compiled without and with the log, in turn."""
    from hybridc.compiler.runtime.session import InferenceSession

    with tempfile.TemporaryDirectory() as folder:
        empty = Path(folder) / "empty.sqlite"
        access.open_log(str(empty)).close()
        runs: dict[str, Any] = {}
        for name, where in (("default", empty), ("tuned", log)):
            artifact = driver.compile(path, log=str(where), threads=THREADS)
            artifact.save(Path(folder) / f"{name}.hyb")
            runs[name] = _runner(InferenceSession(Path(folder) / f"{name}.hyb"), path)
        return side_by_side.in_turn(runs, _LEAST)


def _runner(opened: Any, path: Path) -> Any:
    from hybridc.compiler import frontend
    from hybridc.compiler.model import random_feed

    feed = random_feed(frontend.load(path).inputs, 0)
    return lambda: opened.run(None, feed)


@dataclass(frozen=True)
class Pair:
    """Our point and MetaSchedule's trace of one seed, timed in turn."""

    seed: int
    times: Times

    @property
    def ratio(self) -> float:
        """Our time as a ratio to MetaSchedule's."""
        return self.times.ratio("ours", "theirs")


def beside_metaschedule(kernels: Sequence[Operator], trials: int, baseline: int) -> Iterator[str]:
    """Tune kernels, and time what came of it beside what MetaSchedule found, in turn."""
    libraries = (f"ours (default and {trials} trials)", f"MetaSchedule ({baseline} trials)")
    yield markdown.head(("kernel", *libraries, "ratio", "seeds", "measured"))
    good, counted = 0, 0
    chosen = target.parse("cpu", THREADS)
    with Pool(THREADS) as pool:
        for operator in kernels:
            kernel = _kernel(operator, chosen)
            key = keys.of_kernel(kernel.func).key
            theirs = metaschedule.here(key, baseline)
            if not theirs:
                yield f"* {operator.name}: no search by MetaSchedule on this machine is kept."
                continue
            pairs = [_pair(kernel, one, trials, pool) for one in theirs]
            yield _row(operator.name, pairs)
            counted += 1
            good += statistics.median(pair.ratio for pair in pairs) <= 1
    missed = " **missed**" if good < _SHARE * counted else ""
    yield f"* all: as fast on {good} of {counted} kernels; the goal is {_SHARE:.0%}{missed}."


def _row(name: str, pairs: Sequence[Pair]) -> str:
    ours, theirs = (
        statistics.median(pair.times.median(whose) for pair in pairs)
        for whose in ("ours", "theirs")
    )
    ratios = sorted(pair.ratio for pair in pairs)
    middle = statistics.median(ratios)
    spread = f" ({ratios[0]:.2f} to {ratios[-1]:.2f})" if len(ratios) > 1 else ""
    slower = " **slower**" if middle > 1 else ""
    return (
        f"| {name} | {ours * 1e6:.1f} µs | {theirs * 1e6:.1f} µs | {middle:.2f}{spread}{slower} |"
        f" {len(pairs)} | {datetime.date.today()} |"
    )


def _pair(kernel: Kernel, theirs: Search, trials: int, pool: Pool) -> Pair:
    """Tune by the seed of a search, and time the two winners in turn."""
    with access.open_log(str(LOGS / f"kernels-{theirs.seed}.sqlite")) as log:
        (task,) = tasks.distinct([(kernel, 1)])
        chosen = strategies.catalogue().create(f"evolutionary{{seed={theirs.seed}}}")
        Tuner([task], log, chosen, pool, Budget(trials)).run()
        won = log.lookup(task.workload.key, keys.of_target(kernel.target), keys.of_toolchain())
    point = won.record.point if isinstance(won, Hit) else task.search.default
    with tempfile.TemporaryDirectory() as folder:
        libraries = {name: Path(folder) / f"{name}.so" for name in ("ours", "theirs")}
        kernel.compile(point, libraries["ours"])
        replayed(kernel, theirs, libraries["theirs"])
        return Pair(theirs.seed, side_by_side.measured(kernel, libraries, Path(folder)))


def replayed(kernel: Kernel, found: Search, library: Path) -> None:
    """Write the library of MetaSchedule's best trace, built as TVM builds it."""
    import tvm
    from tvm.s_tir import Schedule, Trace
    from tvm.s_tir.meta_schedule import tune_context

    normalized = tune_context._normalize_mod  # pyright: ignore[reportPrivateUsage]
    schedule = Schedule(normalized(kernel.func))
    Trace.apply_json_to_schedule(found.trace, schedule)
    tvm.compile(schedule.mod, target=kernel.target.tvm).export_library(str(library))


def _kernel(operator: Operator, chosen: target.Target) -> Kernel:
    """An operator as the tuner has it, with the passes that follow the schedules."""
    found = tuning_kernels.matched(operator, chosen)
    finish = plans.finish(pipeline.parse(Options().pipeline))
    return Kernel(operator.name, found.func, found.rule, chosen, finish)


def _told(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    command_line.run(main)
