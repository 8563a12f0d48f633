"""Measure every point of thinned spaces: what the simulator replays and the cost model learns from.

    python benchmarks/sweep.py build DIR     generate code for every point; takes an hour
    python benchmarks/sweep.py time DIR      time what is built, for a minute at most; call it again
    python benchmarks/sweep.py collect DIR   write the sweep of this machine to benchmarks/data

Code is generated apart from timing, so that the timing alone needs a quiet machine, and that for
some seconds at a time: what was built and what was timed stays in DIR, and each call goes on from
there.
"""

import argparse
import itertools
import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import command_line
import tuning_kernels
import tvm
from command_line import count
from sweep_collection import collect
from sweep_timing import time_all
from swept_kernels import SWEPT
from tuning_kernels import Kernel, Matched

from hybridc.compiler import settings, target
from hybridc.compiler.building.build import TIR_PIPELINE
from hybridc.compiler.errors import InputError
from hybridc.compiler.filesystem.files import replacing
from hybridc.compiler.interfaces import Point, PrimFunc, Space
from hybridc.compiler.target import Target
from hybridc.compiler.tuning.strategies import search_task

THREADS = 2
# Points of a thinned space, those with the same schedule counted each; this share of them where
# the code of a point takes many seconds to generate.
_POINTS, _FEW = 128, 3 / 8
_SLOW_TO_BUILD = {"winograd-conv2d", "attention"}
# What a step finds in its folder.
_NEEDED = {"time": "*.json", "collect": "*.npy"}
# Functions generated at once; one that fails takes none of the others along.
_AT_ONCE = 16


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


def plan(kernel: Kernel, chosen: Target, points: int) -> Plan:
    """What there is to measure of a kernel; the default comes first."""
    found = tuning_kernels.matched(kernel, chosen)
    task = search_task(found.rule, found.match)
    default = task.canonical(task.default)
    limit = round(points * _FEW) if kernel.rule in _SLOW_TO_BUILD else points
    space = thinned(task.space, default, limit)
    every = [dict(zip(space, values, strict=True)) for values in itertools.product(*space.values())]
    keyed = {task.key(point): task.canonical(point) for point in [default, *every]}
    return Plan(found, space, tuple(keyed.values()))


def build(folder: Path, chosen: Target, kernels: Sequence[Kernel], points: int) -> None:
    """Generate code for those of the kernels that the folder lacks."""
    for kernel in kernels:
        file = folder / f"{_slug(kernel.name)}.json"
        if file.exists():
            continue
        start = time.process_time()
        try:
            planned = plan(kernel, chosen, points)
        except ValueError as error:  # on this target, another rule takes the kernel
            print(error, flush=True)
            continue
        indices = range(len(planned.points))
        for first in indices[::_AT_ONCE]:
            _generate(planned, indices[first : first + _AT_ONCE], file, chosen)
        described = {
            "name": kernel.name,
            "rule": kernel.rule,
            "space": {knob: list(values) for knob, values in planned.space.items()},
            "points": [list(point.values()) for point in planned.points],
            "parameters": [_describe(param) for param in planned.found.func.params],
        }
        with replacing(file) as handle:
            handle.write(json.dumps(described).encode())
        seconds = time.process_time() - start
        print(f"{kernel.name}: {len(planned.points)} points, {seconds:.0f} s of a core", flush=True)


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name)


def _generate(planned: Plan, indices: Sequence[int], file: Path, chosen: Target) -> None:
    """One library of a function `p7` for point 7 and so on; points that fail are left out."""
    try:
        scheduled = {f"p{index}": _scheduled(planned, index) for index in indices}
        module = tuning_kernels.finished(tvm.IRModule(scheduled), chosen)
        executable = tvm.compile(module, target=chosen.tvm, tir_pipeline=TIR_PIPELINE)
        executable.export_library(str(file.with_suffix(f".{indices[0]}-{indices[-1]}.so")))
    except Exception as error:  # TVM raises errors of many kinds
        if len(indices) > 1:
            for index in indices:
                _generate(planned, [index], file, chosen)
        else:
            print(
                f"{planned.found.kernel.name} {planned.points[indices[0]]}: {error}"[:300],
                flush=True,
            )


def _scheduled(planned: Plan, index: int) -> PrimFunc:
    found = planned.found
    scheduled = found.rule.schedule(found.match, planned.points[index]).mod["main"]
    return scheduled.with_attrs({"global_symbol": f"p{index}", "tirx.is_scheduled": True})


def _describe(param: Any) -> tuple[list[int], str]:
    return [int(extent) for extent in param.shape], str(param.dtype)


def main() -> None:
    """Run the step that the command names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=("build", "time", "collect"))
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--share", type=int, nargs=2, default=(0, 1), help="build: 0 3, 1 3, 2 3 of 3 processes"
    )
    parser.add_argument("--points", type=count, default=_POINTS, help="build: of a kernel, at most")
    parser.add_argument("--kernels", type=count, help="build: the first of the list alone")
    parser.add_argument("--seconds", type=float, default=45, help="time: the longest it may take")
    parser.add_argument("--rounds", type=count, default=2, help="time: how often in all")
    options = parser.parse_args()
    place, processes = options.share
    if not 0 <= place < processes:
        parser.error(f"--share {place} {processes}: there is no process {place} of {processes}")
    if options.step in _NEEDED and not any(options.folder.glob(_NEEDED[options.step])):
        raise InputError(f"{options.folder}: nothing in there to {options.step}")
    settings.set_runtime_threads(THREADS)
    if options.step == "build":
        options.folder.mkdir(parents=True, exist_ok=True)
        kernels = SWEPT[: options.kernels][place::processes]
        build(options.folder, target.parse("cpu", THREADS), kernels, options.points)
    elif options.step == "time":
        time_all(options.folder, options.seconds, options.rounds)
    else:
        collect(options.folder, target.parse("cpu", THREADS))


if __name__ == "__main__":
    command_line.run(main)
