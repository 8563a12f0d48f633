"""Measure every point of thinned spaces: what the simulator replays and the cost model learns from.

    python benchmarks/sweep.py build DIR     generate code for every point; takes an hour
    python benchmarks/sweep.py time DIR      time what is built, for a minute at most; call it again
    python benchmarks/sweep.py collect DIR   write benchmarks/data/sweep.npz

Code is generated apart from timing, so that the timing alone needs a quiet machine.  All points of
a kernel are timed in two passes, the second in reverse, so that drift shows as a difference; every
output is compared with that of the default point.  Caches are warm, as in a network whose layers
fit them; a clearly slow point is timed three times only.
"""

import argparse
import itertools
import json
import re
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import tuning_kernels
import tvm
from tuning_kernels import KERNELS, Kernel, Matched

from hybridc.compiler import settings, target
from hybridc.compiler.build import TIR_PIPELINE
from hybridc.compiler.files import replacing
from hybridc.compiler.hardware import host
from hybridc.compiler.interfaces import Point, PrimFunc, Space
from hybridc.compiler.log import keys
from hybridc.compiler.strategies import search_task
from hybridc.compiler.target import Target
from hybridc.compiler.tensors import to_numpy, to_tensor
from hybridc.compiler.tuning import simulate
from hybridc.compiler.tuning.cost_model import kendall
from hybridc.compiler.tuning.features import PLAIN, Features

THREADS = 2
DATA = Path(__file__).parent / "data" / "sweep.npz"
# Points of a thinned space, those with the same schedule counted each; fewer where the code of a
# point takes many seconds to generate.
_POINTS, _FEW_POINTS = 128, 48
_SLOW_TO_BUILD = {"winograd-conv2d", "attention"}
# Functions generated at once; one that fails takes none of the others along.
_AT_ONCE = 16
# Seconds of one sample, at least; a clock's resolution and a thread's wake-up are below 1 % of it.
_SAMPLE = 1e-3
# Samples of a point in each pass; of one this much slower than the default, in all.
_SAMPLES, _SLOW, _SLOW_SAMPLES = 5, 2.5, 3
# Of a quiet machine, the passes over most kernels differ by 1 to 4 %.
_UNQUIET = 0.06
# What counts as near the best.
_NEAR = 1.05


@dataclass(frozen=True)
class Plan:
    """A kernel's thinned space and the points of it that differ in their schedule."""

    found: Matched
    space: Space
    points: tuple[Point, ...]


def thinned(space: Space, keep: Point, limit: int) -> Space:
    """At most `limit` points: values left out evenly, those of `keep` never, the ends last."""
    thin = {knob: list(values) for knob, values in space.items()}
    while prod(len(values) for values in thin.values()) > limit:
        knob = max(thin, key=lambda knob: len(thin[knob]))
        values = thin[knob]
        inner = [i for i in range(1, len(values) - 1) if values[i] != keep[knob]]
        if inner:
            # The value whose neighbours lie closest together says least.
            values.pop(min(inner, key=lambda i: values[i + 1] / max(values[i - 1], 0.5)))
        elif len(values) > 2:
            values.pop(0 if values[0] != keep[knob] else -1)
        else:
            break
    return {knob: tuple(values) for knob, values in thin.items()}


def plan(kernel: Kernel, chosen: Target) -> Plan:
    """What there is to measure of a kernel; the default comes first."""
    found = tuning_kernels.matched(kernel, chosen)
    task = search_task(found.rule, found.match)
    default = task.canonical(task.default)
    limit = _FEW_POINTS if kernel.rule in _SLOW_TO_BUILD else _POINTS
    space = thinned(task.space, default, limit)
    points = [
        dict(zip(space, values, strict=True)) for values in itertools.product(*space.values())
    ]
    keyed = {task.key(point): task.canonical(point) for point in [default, *points]}
    return Plan(found, space, tuple(keyed.values()))


def build(folder: Path, chosen: Target, share: tuple[int, int]) -> None:
    """Generate code for the kernels that the folder lacks; `share` is which part, of how many."""
    for kernel in KERNELS[share[0] :: share[1]]:
        file = folder / f"{_slug(kernel.name)}.json"
        if file.exists():
            continue
        start, made = time.monotonic(), plan(kernel, chosen)
        indices = range(len(made.points))
        for first in indices[::_AT_ONCE]:
            _generate(made, indices[first : first + _AT_ONCE], file, chosen)
        described = {
            "name": kernel.name,
            "rule": kernel.rule,
            "space": {knob: list(values) for knob, values in made.space.items()},
            "points": [list(point.values()) for point in made.points],
            "parameters": [_describe(param) for param in made.found.func.params],
        }
        with replacing(file) as handle:
            handle.write(json.dumps(described).encode())
        seconds = time.monotonic() - start
        print(f"{kernel.name}: {len(made.points)} points, {seconds:.0f} s", flush=True)


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name)


def _generate(made: Plan, indices: Sequence[int], file: Path, chosen: Target) -> None:
    """One library of a function `p7` for point 7 and so on; points that fail are left out."""
    try:
        scheduled = {f"p{index}": _scheduled(made, index) for index in indices}
        module = tuning_kernels.finished(tvm.IRModule(scheduled), chosen)
        executable = tvm.compile(module, target=chosen.tvm, tir_pipeline=TIR_PIPELINE)
        executable.export_library(str(file.with_suffix(f".{indices[0]}-{indices[-1]}.so")))
    except Exception as error:  # TVM raises errors of many kinds
        if len(indices) > 1:
            for index in indices:
                _generate(made, [index], file, chosen)
        else:
            print(f"{made.found.kernel.name} {made.points[indices[0]]}: {error}"[:300], flush=True)


def _scheduled(made: Plan, index: int) -> PrimFunc:
    found = made.found
    scheduled = found.rule.schedule(found.match, made.points[index]).mod["main"]
    return scheduled.with_attrs({"global_symbol": f"p{index}", "tirx.is_scheduled": True})


def _describe(param: Any) -> tuple[list[int], str]:
    return [int(extent) for extent in param.shape], str(param.dtype)


def time_all(folder: Path, limit: float) -> None:
    """Time kernels that are built and not timed, until `limit` seconds are over."""
    end = time.monotonic() + limit
    for file in sorted(folder.glob("*.json")):
        timed = file.with_suffix(".npy")
        if timed.exists():
            continue
        described = json.loads(file.read_text())
        functions = _functions(file)
        if time.monotonic() + _expected(described, functions) > end:
            continue
        passes = _timed(described, functions)
        print(_summary(described["name"], passes), flush=True)
        if _moved(passes) > _UNQUIET:
            print("  the machine was not quiet: to be timed again", flush=True)
            continue
        with replacing(timed) as handle:
            np.save(handle, passes)


def _functions(file: Path) -> Mapping[int, Any]:
    """The functions of a kernel's libraries, by the number of their point."""
    found: dict[int, Any] = {}
    for library in file.parent.glob(f"{file.stem}.*.so"):
        first, last = map(int, library.name.split(".")[1].split("-"))
        module = tvm.runtime.load_module(str(library))
        found |= {i: module[f"p{i}"] for i in range(first, last + 1)}
    return found


def _expected(described: Mapping[str, Any], functions: Mapping[int, Any]) -> float:
    """Seconds that a kernel takes to time, if its points take three times the default's."""
    arguments = _arguments(described)
    once = _samples(functions[0], arguments, 1)[0]
    return len(functions) * 3 * (once + _SAMPLE) * (2 * _SAMPLES + 2)


def _timed(described: Mapping[str, Any], functions: Mapping[int, Any]) -> Any:
    """Median seconds of the two passes `[2, points]`; NaN for what failed or computes otherwise."""
    arguments, wanted = _arguments(described), None
    medians = np.full((2, len(described["points"])), np.nan)
    for index in sorted(functions):
        functions[index](*arguments)
        computed = to_numpy(arguments[-1], np.dtype(described["parameters"][-1][1]))
        wanted = computed.copy() if wanted is None else wanted
        if not np.allclose(computed, wanted, rtol=1e-3, atol=1e-3 * np.abs(wanted).max()):
            print(f"{described['name']}: point {index} computes something else", flush=True)
            continue
        medians[0, index] = _median(functions[index], arguments, medians[0, 0])
    for index in sorted(functions, reverse=True):
        if np.isfinite(medians[0, index]):
            slow = medians[0, index] > _SLOW * medians[0, 0]
            again = medians[0, index] if slow else _median(functions[index], arguments, np.nan)
            medians[1, index] = again
    return medians


def _median(function: Any, arguments: Sequence[Any], default: float) -> float:
    first = _samples(function, arguments, _SLOW_SAMPLES)
    if statistics.median(first) > _SLOW * default:
        return statistics.median(first)
    return statistics.median(first + _samples(function, arguments, _SAMPLES - _SLOW_SAMPLES))


def _samples(function: Any, arguments: Sequence[Any], count: int) -> list[float]:
    """Seconds of one call, each the mean over a sample's calls; one call warms up."""
    function(*arguments)
    start = time.perf_counter()
    function(*arguments)
    calls = 1 + int(_SAMPLE / (time.perf_counter() - start))
    found: list[float] = []
    for _ in range(count):
        start = time.perf_counter()
        for _ in range(calls):
            function(*arguments)
        found.append((time.perf_counter() - start) / calls)
    return found


def _arguments(described: Mapping[str, Any]) -> list[Any]:
    draw = np.random.default_rng(0)
    return [
        to_tensor(draw.uniform(-1, 1, shape).astype(dtype))
        for shape, dtype in described["parameters"]
    ]


def _moved(passes: Any) -> float:
    """By how much the second pass differs from the first, for half of the points."""
    return float(np.nanmedian(np.abs(np.log(passes[1] / passes[0]))))


def collect(folder: Path, chosen: Target) -> None:
    """Write what was timed, with the features of each point, as one file."""
    sweeps = list(_collected(folder, chosen))
    about = {
        "processor": host.cpu_model(),
        "target": chosen.describe(),
        "threads": THREADS,
        "toolchain": keys.of_toolchain().data,
        "date": time.strftime("%Y-%m-%d"),
        "repeated": repeated(folder),
    }
    simulate.save(DATA, sweeps, about)
    count = sum(len(sweep.points) for sweep in sweeps)
    print(f"{len(sweeps)} kernels, {count} points, {DATA.stat().st_size / 1e6:.2f} MB")


def repeated(folder: Path) -> dict[str, float]:
    """What measuring again tells, of points that were timed twice: no model can do better.

    Medians over kernels of the difference of a point's times and of Kendall's τ, and the share of
    kernels whose fastest point of the first pass is within 5 % of the fastest in the second.
    """
    moved: list[float] = []
    taus: list[float] = []
    near: list[bool] = []
    for file in sorted(folder.glob("*.npy")):
        first, second = np.load(file)
        twice = np.isfinite(first) & (first != second)
        moved.append(float(np.median(np.abs(np.log(second[twice] / first[twice])))))
        taus.append(kendall(first[twice], second[twice]))
        near.append(second[np.nanargmin(first)] <= _NEAR * np.nanmin(second))
    middle = (float(np.nanmedian(found)) for found in (moved, taus))
    return dict(zip(("moved", "tau", "near"), (*middle, float(np.mean(near))), strict=True))


def _collected(folder: Path, chosen: Target) -> Iterator[simulate.Sweep]:
    by_name = {kernel.name: kernel for kernel in KERNELS}
    for file in sorted(folder.glob("*.npy")):
        described = json.loads(file.with_suffix(".json").read_text())
        found = tuning_kernels.matched(by_name[described["name"]], chosen)
        task = search_task(found.rule, found.match)
        space = {knob: tuple(values) for knob, values in described["space"].items()}
        points = [dict(zip(space, values, strict=True)) for values in described["points"]]
        numbers = {task.key(point): i for i, point in enumerate(points)}
        rows = [
            numbers[task.key(dict(zip(space, values, strict=True)))]
            for values in itertools.product(*space.values())
        ]
        features = _featured(file.with_suffix(".features"), found, points, chosen)
        seconds = np.load(file).min(axis=0)
        yield simulate.Sweep(
            described["name"],
            described["rule"],
            space,
            points[0],
            tuple(points),
            np.asarray(rows),
            seconds,
            features,
        )


def _featured(file: Path, found: Matched, points: Sequence[Point], chosen: Target) -> Any:
    """The features of each point; those of loop nests are kept, as they take what scheduling does.

    The file is to be deleted where schedules change.
    """
    features = Features(found.func, found.rule, found.match, chosen)
    made = features.plain(points)
    if not file.exists():
        whole = features.of(points)
        with replacing(file) as handle:
            np.save(handle, whole[:, PLAIN - 1 :])
        print(f"{found.kernel.name}: features of {len(points)} points", flush=True)
    made[:, PLAIN - 1 :] = np.load(file.open("rb"), allow_pickle=False)
    return made


def _summary(name: str, passes: Any) -> str:
    both = passes.min(axis=0)
    moved = _moved(passes)
    best = np.nanmin(both)
    return (
        f"{name}: {np.isfinite(both).sum()} points, default {both[0] * 1e6:.1f} us,"
        f" best {best * 1e6:.1f} us ({best / both[0]:.3f}), median {np.nanmedian(both) / best:.2f}"
        f" of best, passes differ by {moved:.2%}"
    )


def main() -> None:
    """Run the step that the command names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=("build", "time", "collect"))
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--share", type=int, nargs=2, default=(0, 1), help="build: 0 3, 1 3, 2 3 of 3 processes"
    )
    parser.add_argument("--seconds", type=float, default=45, help="time: the longest it may take")
    given = parser.parse_args()
    settings.set_runtime_threads(THREADS)
    given.folder.mkdir(parents=True, exist_ok=True)
    if given.step == "build":
        build(given.folder, target.parse("cpu", THREADS), tuple(given.share))
    elif given.step == "time":
        time_all(given.folder, given.seconds)
    else:
        collect(given.folder, target.parse("cpu", THREADS))


if __name__ == "__main__":
    main()
