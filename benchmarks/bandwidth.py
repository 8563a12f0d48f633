"""Kernels that move data, at their default points, against a copy of as many bytes."""

import argparse
import math
from collections.abc import Sequence
from typing import Any

import command_line
import numpy as np
import tvm
from bandwidth_kernels import KERNELS, Kernel
from tvm import relax, te, tirx

from hybridc.compiler import pipeline, settings, target
from hybridc.compiler.interfaces import Context, PrimFunc
from hybridc.compiler.ir.rewrite import operator
from hybridc.compiler.target import Target
from hybridc.schedules.elementwise import Elementwise

THREADS = 2
# For each kernel: longer than the kernel of an idle machine leaves two threads on one core.
_SECONDS = 0.6
_GOAL = 0.7  # of a copy
_LOWERED = "simplify-inference,fold-constants,widen-types,legalize,fuse"
_PASSES = f"{_LOWERED},schedule,start-at-infinity,fast-math,propagate-nan,shield-floats"
_ROWS = 30_000  # of a table
_COPIES = tuple(2**power for power in range(14, 25, 2))  # elements


def run(wanted: str = "") -> str:
    """Time every kernel, or those with a word in their names, at its point; return the table."""
    settings.set_runtime_threads(THREADS)
    chosen = target.parse("cpu", THREADS)
    copies = [(8 * count, time_copy(count, chosen)) for count in _COPIES]
    lines = [
        f"Default points, {THREADS} threads, best time; bytes are those of operands and result."
        f" The goal is {_GOAL:.0%} of the speed of a copy of as many bytes.",
        "",
        "| kernel | rules | MB | µs | GB/s | share of a copy |",
        "|---|---|---|---|---|---|",
    ]
    for name, kernel in KERNELS.items():
        if wanted not in name:
            continue
        rules, moved, seconds = time_kernel(kernel, chosen)
        share = copy_time(moved, copies) / seconds
        missed = " **missed**" if share < _GOAL else ""
        numbers = f"{moved / 1e6:.2f} | {seconds * 1e6:.1f} | {moved / seconds / 1e9:.0f}"
        lines.append(f"| {name} | {rules} | {numbers} | {share:.0%}{missed} |")
    return "\n".join(lines)


def copy_time(moved: int, copies: Sequence[tuple[int, float]]) -> float:
    """Seconds to copy, so that as many bytes are moved; between measured sizes by interpolation."""
    sizes, times = np.array(copies).T
    return float(np.interp(np.log(moved), np.log(sizes), times / sizes)) * moved


def time_copy(count: int, chosen: Target) -> float:
    """Seconds of a copy of `count` floats, with one thread or with all."""
    x = te.placeholder((count,), "float32", "x")
    func = te.create_prim_func([x, te.compute((count,), lambda i: x[i], "y")])
    rule = Elementwise()
    match: Any = rule.match(func, chosen)
    points = [{"lanes": 0, "threads": threads} for threads in (0, 1)]
    return min(time_function(rule.schedule(match, p).mod["main"], chosen) for p in points)


def time_kernel(kernel: Kernel, chosen: Target) -> tuple[str, int, float]:
    """The rules that take an operator's loop nests, the bytes it moves, and its seconds."""
    build, operands = kernel
    builder = relax.BlockBuilder()
    inputs = [relax.Var(f"x{i}", relax.TensorType(s, d)) for i, (s, d) in enumerate(operands)]
    with builder.function("main", inputs):
        with builder.dataflow():
            result = builder.emit_output(builder.normalize(build(*inputs)))
        builder.emit_func_output(result)
    context = Context(chosen, pipeline.rules())
    module = pipeline.run(pipeline.parse(_PASSES), builder.finalize(), context)
    result_type = module["main"].ret_ty
    moved = sum(map(_bytes, [*inputs, *getattr(result_type, "fields", [result_type])]))
    constants = _constants(module)
    funcs = [(var, f) for var, f in module.functions_items() if isinstance(f, tirx.PrimFunc)]
    rules = ", ".join(dict.fromkeys(record.rule for record in context.kernels))
    seconds = [time_function(f, chosen, constants.get(var.name_hint)) for var, f in funcs]
    return rules, moved, sum(seconds)


def _constants(module: Any) -> dict[str, list[Any]]:
    """By kernel: the tensors that it is always given, such as tables; None for other operands."""
    found: dict[str, list[Any]] = {}

    def visit(call: Any) -> None:
        if operator(call) == "call_tir":
            operands = call.args[1].fields
            found[call.args[0].name_hint] = [
                each.value if isinstance(each, tvm.ir.GenericConst) else None for each in operands
            ]

    relax.analysis.post_order_visit(module["main"], visit)
    return found


def time_function(func: PrimFunc, chosen: Target, constants: Sequence[Any] | None = None) -> float:
    """Seconds of one call of a loop nest; operands that are no `constants` are random."""
    module = tvm.IRModule({"main": func.with_attr("global_symbol", "main")})
    compiled = tvm.compile(module, target=chosen.tvm).jit()
    known = [*(constants or ()), *[None] * len(func.params)]
    tensors = [
        _random(param) if tensor is None else tensor
        for param, tensor in zip(func.params, known, strict=False)
    ]

    def times(number: int, repeat: int) -> float:
        timer = compiled.time_evaluator("main", tvm.cpu(), number=number, repeat=repeat)
        return float(min(timer(*tensors).results))

    once = times(1, 3)
    number = max(1, min(100, int(1e-3 / once)))
    return times(number, max(5, int(_SECONDS / (once * number))))


def _bytes(value: Any) -> int:
    kind = getattr(value, "ty", value)
    extents = [int(extent) for extent in kind.shape.values]
    return math.prod(extents) * np.dtype(str(kind.dtype)).itemsize


def _random(param: Any) -> Any:
    shape, numbers = [int(extent) for extent in param.shape], np.random.default_rng(0)
    if str(param.dtype) == "float32":
        return tvm.runtime.tensor(numbers.random(shape, "float32"))
    limit = _ROWS if str(param.dtype) == "int64" else 2
    return tvm.runtime.tensor(numbers.integers(0, limit, shape).astype(str(param.dtype)))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "word", nargs="?", default="", help="time only kernels with this in their names"
    )
    print(run(parser.parse_args().word))


if __name__ == "__main__":
    command_line.run(main)
