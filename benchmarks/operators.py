"""Single operators of shapes drawn at random, in fp32 and QDQ int8, beside ONNX Runtime.

`python benchmarks/operators.py compile FOLDER --seed 1 --threads 2` makes the models and compiles
them; `time FOLDER` times them in one process, in turns, and prints a table, the slowest first.
The two are apart so that a machine need be quiet for the latter alone.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import command_line
import numpy as np
import onnxruntime
from operator_models import KINDS, Case, drawn

import hybridc
from hybridc.compiler.errors import hint
from hybridc.compiler.hardware.load import come_to_rest
from hybridc.compiler.runtime.session import InferenceSession

_TURNS, _SECONDS = 5, 0.012
# Calls of a turn that do not count: workers have to wake, and caches to fill.
_WARM, _LEAST, _MOST = 3, 5, 400


def compiled(folder: Path, seed: int, threads: int, kinds: Sequence[str]) -> None:
    """Write every model of a seed, its inputs and its artifact."""
    folder.mkdir(parents=True, exist_ok=True)
    for case in drawn(seed):
        if kinds and case.kind not in kinds:
            continue
        print(f"compiling {case.name}", file=sys.stderr)
        stem = folder / case.name.replace(" ", "_").replace("/", "-")
        try:
            _write(stem, case, threads)
        except hybridc.compiler.errors.HybridcError as error:
            print(f"{case.name}: {error}")


def _write(stem: Path, case: Case, threads: int) -> None:
    path = stem.with_name(stem.name + ".onnx")
    path.write_bytes(case.model.SerializeToString())
    np.savez(stem.with_name(stem.name + ".npz"), **case.feed)
    artifact = hybridc.compile(str(path), threads=threads)
    artifact.save(str(stem.with_name(stem.name + ".hyb")))
    about = {"name": case.name, "kind": case.kind, "threads": threads}
    stem.with_name(stem.name + ".json").write_text(json.dumps(about))


def timed(folder: Path, pattern: str) -> str:
    """The table of what was compiled."""
    rows = []
    for path in sorted(folder.glob(f"{pattern}.json")):
        about = json.loads(path.read_text())
        print(f"timing {about['name']}", file=sys.stderr)
        feed = dict(np.load(path.with_suffix(".npz")))
        ours = InferenceSession(str(path.with_suffix(".hyb")), threads=about["threads"])
        other = _other(path.with_suffix(".onnx"), feed, about["threads"])
        mine, theirs = in_turn(lambda s=ours, f=feed: s.run(None, f), other)
        ratio = min(mine) / min(theirs)
        row = (ratio, about["name"], min(mine), min(theirs))
        rows.append(row)
        # What is done stands in a file, should the time end.
        with (folder / "times.jsonl").open("a") as out:
            out.write(json.dumps(row) + "\n")
    return table(rows)


def _other(path: Path, feed: dict[str, Any], threads: int) -> Callable[[], Any]:
    """ONNX Runtime's call; its threads stop spinning when it returns, or they would take ours."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    return lambda: session.run(None, feed)


def table(rows: Sequence[tuple[float, str, float, float]]) -> str:
    """Rows of the ratio, the name, and microseconds of both."""
    lines = ["| operator | hybridc, µs | ONNX Runtime, µs | ratio |", "|---|---|---|---|"]
    for ratio, name, mine, theirs in sorted(rows, reverse=True):
        lines.append(f"| {name} | {mine * 1e6:.1f} | {theirs * 1e6:.1f} | {ratio:.2f} |")
    return "\n".join(lines)


def in_turn(*runs: Callable[[], Any]) -> list[list[float]]:
    """The shortest call of each turn, for each function."""
    seconds: list[list[float]] = [[] for _ in runs]
    for _ in range(_TURNS):
        for run, kept in zip(runs, seconds, strict=True):
            kept.append(_turn(run))
    return seconds


def _turn(run: Callable[[], Any]) -> float:
    come_to_rest()  # workers of TVM spin for 150 ms, and take a core from the other library
    for _ in range(_WARM):
        run()
    times: list[float] = []
    end = time.perf_counter() + _SECONDS
    while len(times) < _LEAST or (time.perf_counter() < end and len(times) < _MOST):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    """Read the call."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    making = verbs.add_parser("compile", help="draw models, and compile them into a folder")
    making.add_argument("folder", type=Path)
    making.add_argument("--seed", type=int, default=1, help="of the shapes (%(default)s)")
    making.add_argument("--threads", type=int, default=2, help="to run on (%(default)s)")
    making.add_argument(
        "--kinds", default="", metavar="KIND,...", help=f"these alone: {', '.join(KINDS)}"
    )
    timing = verbs.add_parser("time", help="time what is in a folder, and print the table")
    timing.add_argument("folder", type=Path)
    timing.add_argument(
        "--pattern", default="*", help="of the names of files without .json (%(default)s)"
    )
    asked = parser.parse_args()
    if asked.verb == "compile":
        kinds = asked.kinds.split(",") if asked.kinds else ()
        if unknown := [kind for kind in kinds if kind not in KINDS]:
            making.error(f"no kind is named {unknown[0]!r}; {hint(unknown[0], KINDS)}")
        compiled(asked.folder, asked.seed, asked.threads, kinds)
    elif any(asked.folder.glob(f"{asked.pattern}.json")):
        print(timed(asked.folder, asked.pattern))
    else:
        timing.error(f"nothing that `compile` made is in {asked.folder}")


if __name__ == "__main__":
    command_line.run(main)
