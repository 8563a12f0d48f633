"""Times the points of a sweep that are built, in rounds.

A round times all points of a kernel in two passes, the second in reverse, so that drift shows as a
difference; every output is compared with that of the default point.  Rounds are far apart, so that
what disturbs one does not disturb the next.  Caches are warm, as in a network whose layers fit
them; a clearly slow point is timed three times only.
"""

import json
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tvm

from hybridc.compiler.filesystem.files import replacing
from hybridc.compiler.runtime.tensors import to_numpy, to_tensor

# Seconds of one sample, at least; a clock's resolution and a thread's wake-up are below 1 % of it.
_SAMPLE = 1e-3
# Samples of a point in each pass; of one this much slower than the default, in all.
_SAMPLES, _SLOW, _SLOW_SAMPLES = 5, 2.5, 3
# Weights of bytes: sums of two products with any activation are within 16 bits.
_SMALL = 60
# Of a quiet machine, the passes over most kernels differ by 1 to 4 %.
_UNQUIET = 0.1
# The machine's pace before and after a point differs by less, or the point is timed again, as often
# as this in all.
_STEADY, _TRIES = 0.05, 4


def time_all(folder: Path, limit: float, rounds: int) -> None:
    """Time kernels that lack rounds, those that lack most first, until `limit` seconds are over."""
    end = time.monotonic() + limit
    known = {file: _known(file) for file in sorted(folder.glob("*.json"))}
    for file in sorted(known, key=lambda file: len(known[file])):
        described = json.loads(file.read_text())
        if len(known[file]) >= 2 * rounds:
            continue
        functions = _functions(file)
        if time.monotonic() + _expected(described, functions) > end:
            continue
        passes = _timed(described, functions)
        print(_summary(described["name"], passes), flush=True)
        if _moved(passes) > _UNQUIET:
            print("  the machine was not quiet: to be timed again", flush=True)
            continue
        with replacing(file.with_suffix(".npy")) as handle:
            np.save(handle, np.concatenate([known[file], passes]))


def _known(file: Path) -> Any:
    """The passes of a kernel that were timed so far `[passes, points]`."""
    timed = file.with_suffix(".npy")
    if timed.exists():
        return np.load(timed)
    return np.zeros((0, len(json.loads(file.read_text())["points"])))


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
    return len(functions) * 3 * (once + _SAMPLE) * (4 * _SAMPLES)


def _timed(described: Mapping[str, Any], functions: Mapping[int, Any]) -> Any:
    """Median seconds of the two passes `[2, points]`; NaN for what failed or computes otherwise.

    Beside each point the default is timed: where the machine was slower then than it can be, both
    cores in use by a neighbour, say, that is taken out of the point's time; where it changed
    meanwhile, the point is timed again.
    """
    arguments = _arguments(described)
    sound = _sound(described, functions, arguments)
    shape = (2, len(described["points"]))
    medians, paces = np.full(shape, np.nan), np.full(shape, np.nan)
    for each, order in enumerate((sorted(sound), sorted(sound, reverse=True))):
        before = _pace(functions[0], arguments)
        for index in order:
            for _ in range(_TRIES):
                medians[each, index] = _median(functions[index], arguments, before)
                after = _pace(functions[0], arguments)
                paces[each, index], apart = (before + after) / 2, abs(after / before - 1)
                before = after
                if apart < _STEADY:
                    break
    return medians * (np.nanmin(paces) / paces)


def _pace(default: Any, arguments: Sequence[Any]) -> float:
    """Seconds of the default point right now."""
    return statistics.median(_samples(default, arguments, _SLOW_SAMPLES))


def _sound(
    described: Mapping[str, Any], functions: Mapping[int, Any], arguments: Sequence[Any]
) -> list[int]:
    """The points that compute what the default computes."""
    dtype, wanted = np.dtype(described["parameters"][-1][1]), None
    found: list[int] = []
    for index in sorted(functions):
        functions[index](*arguments)
        computed = to_numpy(arguments[-1], dtype)
        wanted = computed.copy() if wanted is None else wanted
        if np.allclose(computed, wanted, rtol=1e-3, atol=1e-3 * np.abs(wanted).max()):
            found.append(index)
        else:
            print(f"{described['name']}: point {index} computes something else", flush=True)
    return found


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
    drawn = {"uint8": (0, 256), "int8": (-_SMALL, _SMALL)}
    return [
        to_tensor(draw.uniform(*drawn.get(dtype, (-1, 1)), shape).astype(dtype))
        for shape, dtype in described["parameters"]
    ]


def _moved(passes: Any) -> float:
    """By how much the second pass differs from the first, for half of the points."""
    return float(np.nanmedian(np.abs(np.log(passes[1] / passes[0]))))


def _summary(name: str, passes: Any) -> str:
    both = passes.min(axis=0)
    moved = _moved(passes)
    best = np.nanmin(both)
    return (
        f"{name}: {np.isfinite(both).sum()} points, default {both[0] * 1e6:.1f} us,"
        f" best {best * 1e6:.1f} us ({best / both[0]:.3f}), median {np.nanmedian(both) / best:.2f}"
        f" of best, passes differ by {moved:.2%}"
    )
