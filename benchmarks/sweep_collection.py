"""Writes the points of a sweep that are timed, with their features, as one file."""

import itertools
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tuning_kernels
from swept_kernels import SWEPT
from tuning_kernels import Matched

from hybridc.compiler.filesystem.files import replacing
from hybridc.compiler.hardware import host
from hybridc.compiler.interfaces import Point
from hybridc.compiler.log import keys
from hybridc.compiler.target import Target
from hybridc.compiler.tuning.prediction.cost_model import Floats, kendall
from hybridc.compiler.tuning.prediction.features import PLAIN, Features
from hybridc.compiler.tuning.simulation import simulate
from hybridc.compiler.tuning.strategies import search_task

_FOLDER = Path(__file__).parent / "data"
# By the bits of a vector of the machine that was swept, and how many of them it multiplies at once.
SWEEPS = {
    (512, 1.0): _FOLDER / "sweep.npz",
    (512, 2.0): _FOLDER / "sweep-two-units.npz",
    (256, 2.0): _FOLDER / "sweep-avx2.npz",
}
# What counts as near the best.
_NEAR = 1.05


def collect(folder: Path, chosen: Target) -> None:
    """Write what was timed, with the features of each point, as one file."""
    file = SWEEPS[chosen.vector_bits, chosen.machine.fma_per_cycle]
    sweeps = list(_collected(folder, chosen))
    about = {
        "processor": host.cpu_model(),
        "target": chosen.describe(),
        "threads": chosen.threads,
        "toolchain": keys.of_toolchain().data,
        "date": time.strftime("%Y-%m-%d"),
        "repeated": repeated(folder),
        "gains": gains(folder),
    }
    simulate.save(file, sweeps, about)
    count = sum(len(sweep.points) for sweep in sweeps)
    print(f"{len(sweeps)} kernels, {count} points, {file.stat().st_size / 1e6:.2f} MB")


def repeated(folder: Path) -> dict[str, float]:
    """What measuring again tells, of points that were timed twice: no model can do better.

    Medians over kernels of the difference of a point's times and of Kendall's τ, and the share of
    kernels whose fastest point of the first passes is within 5 % of the fastest in the others.
    """
    moved: list[float] = []
    taus: list[float] = []
    near: list[bool] = []
    for file in sorted(folder.glob("*.npy")):
        passes = np.load(file)
        first, second = (combined(half) for half in np.split(passes, 2))
        twice = np.isfinite(first) & (first != second)
        moved.append(float(np.median(np.abs(np.log(second[twice] / first[twice])))))
        taus.append(kendall(first[twice], second[twice]))
        near.append(second[np.nanargmin(first)] <= _NEAR * np.nanmin(second))
    middle = (float(np.nanmedian(found)) for found in (moved, taus))
    return dict(zip(("moved", "tau", "near"), (*middle, float(np.mean(near))), strict=True))


def gains(folder: Path) -> dict[str, float]:
    """How many times as fast as the default the best point is, of each kernel.

    The best by one half of the passes, with the times of the other half: luck gains nothing.
    """
    found: dict[str, float] = {}
    for file in sorted(folder.glob("*.npy")):
        halves = [combined(half) for half in np.split(np.load(file), 2)]
        pairs = zip(halves, reversed(halves), strict=True)
        ratios = [float(there[0] / there[np.nanargmin(here)]) for here, there in pairs]
        name = json.loads(file.with_suffix(".json").read_text())["name"]
        found[name] = float(np.mean(ratios))
    return found


def combined(passes: Floats) -> Floats:
    """Seconds of each point by all passes."""
    return np.asarray(np.median(passes, axis=0), np.float64)


def _collected(folder: Path, chosen: Target) -> Iterator[simulate.Sweep]:
    by_name = {kernel.name: kernel for kernel in SWEPT}
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
        seconds = combined(np.load(file))
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
    rows = features.plain(points)
    if not file.exists():
        whole = features.of(points)
        with replacing(file) as handle:
            np.save(handle, whole[:, PLAIN - 1 :])
        print(f"{found.kernel.name}: features of {len(points)} points", flush=True)
    rows[:, PLAIN - 1 :] = np.load(file.open("rb"), allow_pickle=False)
    return rows
