"""Compile again with a warm log: what each part takes, beside compiling without a log."""

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import command_line

from hybridc.compiler import driver
from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.interfaces import Point
from hybridc.compiler.log import access, keys
from hybridc.compiler.log.record import Record, Verdict
from hybridc.compiler.tuning import tasks
from hybridc.compiler.tuning.tasks import Task

_TRIALS = 32  # records of each kernel
_MOST = 3.0  # seconds that a warm log may add
_PASSES = "pass "  # how the stages of passes begin


def main() -> None:
    """Fill a log for a model, compile with and without it, print the table."""
    asked = command_line.model_and_rounds(__doc__)
    model = asked.model
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        records = _fill(folder / "log.sqlite", model)
        plain = ["--log", str(folder / "empty.sqlite")]
        access.open_log(plain[1]).close()
        ways = {"plain": plain, "warm": ["--log", str(folder / "log.sqlite"), "--frozen"]}
        found: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
        for _ in range(asked.rounds):
            for name, options in ways.items():
                found[name].append(_compile(model, folder / f"{name}.hyb", options))
    parts = {name: _medians(taken) for name, taken in found.items()}
    print(_table(parts["plain"], parts["warm"]))
    print(f"\n* {model.stem}, a process each; {records} records of its kernels, none missing.")


def _fill(path: Path, model: Path) -> int:
    """Records of every kernel that has a choice, the default the fastest, as tuning leaves them."""
    unscheduled = driver.unscheduled(model, Options())
    found = tasks.distinct(
        tasks.kernels(unscheduled.module, unscheduled.context, unscheduled.finish)
    )
    place, tools = keys.of_target(unscheduled.context.target), keys.of_toolchain()
    records = [
        Record(
            workload=task.workload.key,
            target=place.key,
            toolchain=tools.key,
            rule=task.kernel.rule_name,
            point=point,
            verdict=Verdict.OK,
            seconds=(1e-3 * 1.02**number,) * 20,
            when=1.7e9 + number,
            who="benchmark",
            seed=0,
        )
        for task in found
        for number, point in enumerate(_points(task))
    ]
    with access.open_log(str(path)) as log:
        return log.add(records, [*(task.workload for task in found), place, tools]).new


def _points(task: Task) -> list[Point]:
    draw, search = random.Random(0), task.search
    points = [dict(search.default)]
    for _ in range(4 * _TRIALS):
        point = {knob: draw.choice(values) for knob, values in search.space.items()}
        if point not in points and len(points) < _TRIALS:
            points.append(point)
    return list(points)


def _compile(model: Path, out: Path, options: list[str]) -> dict[str, float]:
    """Seconds of each part of one call of the command line."""
    script = os.path.join(os.path.dirname(sys.executable), "hybridc")
    call = [script, "compile", str(model), "-o", str(out), "--json", *options]
    start = time.perf_counter()
    done = subprocess.run(call, check=True, capture_output=True, text=True)
    whole = time.perf_counter() - start
    return _parts(json.loads(done.stdout)["stages"], whole)


def _parts(stages: list[dict[str, Any]], whole: float) -> dict[str, float]:
    parts = {"schedule: rules and look-ups": 0.0, "other passes": 0.0}
    for stage in stages:
        name, seconds = stage["name"], stage["seconds"]
        if name.startswith(f"{_PASSES}schedule"):
            name = "schedule: rules and look-ups"
        elif name.startswith(_PASSES):
            name = "other passes"
        parts[name] = parts.get(name, 0.0) + seconds
    rest = whole - sum(parts.values())
    return {**parts, "imports, hashing and writing": rest, "together": whole}


def _medians(taken: list[dict[str, float]]) -> dict[str, float]:
    return {part: median(each[part] for each in taken) for part in taken[0]}


def _table(plain: Mapping[str, float], warm: Mapping[str, float]) -> str:
    lines = ["| part | empty log, s | warm log, s | difference, s |", "|---|---|---|---|"]
    for part in plain:
        more = warm[part] - plain[part]
        missed = " **missed** (≤ 3)" if part == "together" and more > _MOST else ""
        lines.append(f"| {part} | {plain[part]:.2f} | {warm[part]:.2f} | {more:+.2f}{missed} |")
    return "\n".join(lines)


if __name__ == "__main__":
    command_line.run(main)
