"""Writes the points of a sweep that are timed, with their features, as one file."""

import itertools
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tuning_kernels
from tuning_kernels import KERNELS, Matched

from hybridc.compiler.files import replacing
from hybridc.compiler.hardware import host
from hybridc.compiler.interfaces import Point
from hybridc.compiler.log import keys
from hybridc.compiler.strategies import search_task
from hybridc.compiler.target import Target
from hybridc.compiler.tuning import simulate
from hybridc.compiler.tuning.cost_model import kendall
from hybridc.compiler.tuning.features import PLAIN, Features

DATA = Path(__file__).parent / "data" / "sweep.npz"
# What counts as near the best.
_NEAR = 1.05


def collect(folder: Path, chosen: Target) -> None:
    """Write what was timed, with the features of each point, as one file."""
    sweeps = list(_collected(folder, chosen))
    about = {
        "processor": host.cpu_model(),
        "target": chosen.describe(),
        "threads": chosen.threads,
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
