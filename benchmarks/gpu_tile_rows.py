"""The rows of `gpu.py` for tiles: what a rule's default takes beside the best of all its points.

Products of a transformer at batch 32 with what is behind them, by the rule that takes them.  What
the analytic model says of each point stands beside what it takes in a file of the details.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import gpu_kernel_rows
import numpy as np
from gpu_kernel_rows import Case, arrays_of, kernel, product
from gpu_rows import Cells, Machine, Row
from tvm import relax

from hybridc.compiler import pipeline
from hybridc.compiler.interfaces import NotApplicable, Point, PrimFunc
from hybridc.schedules.cuda import tiles
from hybridc.schedules.cuda.product_rule import CudaProducts

op: Any = relax.op
_TABLE = "tiles of products"
_SECONDS = 90
_POINT = "point.json"
# Rows, columns and depth, and what is behind the product.
_PRODUCTS = (
    ((4096, 2304, 768), "bias"),
    ((4096, 768, 768), "residual"),
    ((4096, 3072, 768), "gelu"),
    ((4096, 768, 3072), "residual"),
    ((4096, 4096, 4096), "bias"),
)
_MOST = 32  # points of a product


def products() -> Iterator[Row]:
    """A row for each product."""
    for shape, behind in _PRODUCTS:
        case = partial(_case, shape, behind)
        name = f"{' x '.join(map(str, shape))}, float16, {behind}"
        measure, prepare = partial(_measured, case), partial(_compiled, case)
        yield Row(_TABLE, name, _SECONDS, measure, 6, prepare)


def _case(shape: Sequence[int], behind: str, machine: Machine) -> Case:
    """A product of 16 bits, and what is added to its sums or made of them."""
    plain = product(shape, "float16", machine)
    (rows, _), (_, columns) = (each for each, _ in plain.operands)
    added: list[tuple[tuple[int, ...], str]] = [((columns,), "float32")]
    if behind == "residual":
        added.append(((rows, columns), "float32"))

    def build(x: Any, w: Any, *others: Any) -> Any:
        total = op.matmul(x, w, out_dtype="float32")
        for other in others:
            total = op.add(total, other)
        if behind == "residual":
            return total
        return op.astype(op.nn.gelu(total) if behind == "gelu" else total, "float16")

    return Case((*plain.operands, *added), build, plain.peer, plain.flops)


def _points(rule: CudaProducts, match: Any) -> list[Point]:
    """The default and others, those of the least estimates and of the most stages first."""
    default = rule.default(match, match.target)
    others = [point for point in tiles.points(match) if point != default]
    others.sort(key=lambda point: (tiles.estimate(match, point), -point["stages"]))
    return [default, *others[: _MOST - 1]]


def _taken(func: PrimFunc, machine: Machine) -> tuple[CudaProducts, Any]:
    """The first rule of tiles that takes a product."""
    for rule in pipeline.rules(device=machine.here.kind):
        match: Any = rule.match(func, machine.here)
        if isinstance(rule, CudaProducts) and not isinstance(match, NotApplicable):
            return rule, match
    raise RuntimeError("no rule of tiles takes it here")


def _compiled(case: Any, machine: Machine, folder: Path) -> None:
    """Each point's kernel in a folder of its own; none for a CPU."""
    if machine.dry:
        return
    func = kernel(case(machine), machine.here)
    rule, match = _taken(func, machine)
    for number, point in enumerate(_points(rule, match)):
        place = folder / f"{number:03}"
        place.mkdir()
        gpu_kernel_rows.exported(rule.schedule(match, point).mod, machine.here, place)
        told = {"point": dict(point), "estimate": _microseconds(match, point)}
        (place / _POINT).write_text(json.dumps(told))


def _microseconds(match: Any, point: Point) -> float:
    return tiles.estimate(match, point) / match.gpu.clock * 1e6


def _measured(case: Any, machine: Machine, folder: Path) -> Cells:
    """The default's time, the best's, and what the best is."""
    if machine.dry:
        return {"result": "a GPU's"}
    func = kernel(case(machine), machine.here)
    arrays = arrays_of(func)
    found: list[tuple[float, Mapping[str, Any]]] = []
    first: Any = None
    for place in sorted(path.parent for path in folder.glob(f"*/{_POINT}")):
        seconds, made = gpu_kernel_rows.ours(func, arrays, machine, place)
        first = made if first is None else first
        _agree(made, first, place.name)
        found.append((seconds, json.loads((place / _POINT).read_text())))
    default, (best, told) = found[0][0], min(found, key=lambda each: each[0])
    if machine.details:
        _tell(found, machine.details / f"tiles-{folder.name}.txt")
    knobs = ", ".join(f"{name} {value}" for name, value in told["point"].items())
    return {
        "default, µs": f"{default * 1e6:.1f}",
        "best, µs": f"{best * 1e6:.1f}",
        "default / best": f"{default / best:.2f}",
        "points": str(len(found)),
        "the best": knobs,
    }


def _tell(found: Sequence[tuple[float, Mapping[str, Any]]], path: Path) -> None:
    """Write what each point takes and what it was thought to take."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"{us * 1e6:8.1f} {told['estimate']:8.1f} {told['point']}" for us, told in found]
    path.write_text("\n".join(["      µs estimate point", *lines, ""]))


def _agree(made: Any, first: Any, name: str) -> None:
    """Raise AssertionError where a point computes something else than the default."""
    wide, true = (np.asarray(each, np.float32) for each in (made, first))
    off = float(np.abs(wide - true).max() / np.abs(true).max())
    assert off < 1e-2, f"point {name} is off by {off:.0e}"
