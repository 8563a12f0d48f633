"""Loop nests of any form on a GPU: what no rule knows is right all the same."""

from typing import Any

import pytest
import tvm
from cuda_emulator import needs_compiler, source_of
from cuda_kernels import check, gpu
from kernel_builders import floats, op, operator
from kernel_corpus import RECURRENT

from hybridc.compiler import pipeline, plugin
from hybridc.compiler.cuda import launches
from hybridc.compiler.interfaces import Context
from hybridc.passes.schedule import Schedule
from hybridc.schedules.cuda_elementwise import CudaElementwise

RULE = {plugin.name_of(type(rule)): rule for rule in pipeline.rules(device="cuda")}["cuda-fallback"]
_HEAD = """
@T.prim_func(s_tir=True, private=True)
def main(x: T.Buffer((6, 40), "float32"), y: T.Buffer((6, 40), "float32")):
    T.func_attr({"tirx.noalias": True})
    with T.sblock("opaque"):
        T.reads(x[0:6, 0:40])
        T.writes(y[0:6, 0:40])
"""
# The body of each, and how many threads run each of its launches.
BODIES = {
    "a sum along each row": (
        """
for b in T.serial(6):
    y[b, 0] = x[b, 0]
    for j in T.serial(39):
        y[b, j + 1] = y[b, j] + x[b, j + 1]
""",
        [6],
    ),
    "steps outside of rows": (
        """
for t in T.serial(39):
    for b in T.parallel(6):
        y[b, t + 1] = x[b, t] if t < 3 else y[b, t] * T.float32(0.5) + x[b, t]
for b in T.serial(6):
    y[b, 0] = x[b, 0]
""",
        [6, 6],
    ),
    "an array for each row": (
        """
for b in T.serial(6):
    held = T.alloc_buffer((400,), "float32")
    for j in T.serial(400):
        held[j] = x[b, j % 40] * T.float32(2)
    for j in T.vectorized(40):
        y[b, j] = held[399 - j] + held[j]
""",
        [6],
    ),
    "a small array for each row": (
        """
for b in T.serial(6):
    held = T.alloc_buffer((40,), "float32")
    for j in T.serial(40):
        held[j] = x[b, j] * T.float32(2)
    for j in T.serial(40):
        y[b, j] = held[39 - j]
""",
        [6],
    ),
    "an array between statements": (
        """
held = T.alloc_buffer((6, 40), "float32")
for b, j in T.grid(6, 40):
    held[b, j] = x[b, j] + T.float32(1)
for b, j in T.grid(6, 40):
    y[b, j] = held[5 - b, 39 - j]
""",
        [240, 240],
    ),
    "rows that read the last one": (
        """
for b in T.serial(6):
    for j in T.serial(40):
        y[b, j] = x[b, j] if b == 0 else y[b - 1, 39 - j] + x[b, j]
""",
        [1],
    ),
    "elements by other names": (
        """
for b in T.serial(3):
    for j in T.serial(40):
        y[2 * b, j] = x[b, j]
        y[2 * b + 1, j] = x[b + 3, j]
""",
        [40],
    ),
}


def kernel(body: str) -> Any:
    """A function of an opaque block."""
    from tvm.script import tirx

    lines = "".join(f"        {line}\n" for line in body.strip().splitlines())
    return tvm.script.from_source(_HEAD + lines, {"T": tirx})


@needs_compiler
@pytest.mark.parametrize("name", BODIES)
def test_statements_are_launches_with_a_thread_for_each_turn_that_stands_alone(name: str) -> None:
    body, threads = BODIES[name]
    func, device = kernel(body), gpu()
    assert check(RULE, func, device, points=0)
    match: Any = RULE.match(func, device)
    made = RULE.schedule(match, RULE.default(match, device)).mod["main"]
    found = launches.of_kernel(made, device)
    assert [launch.block_size * launch.grid[0] for launch in found] == threads


@needs_compiler
@pytest.mark.parametrize("name", [name for name, _ in RECURRENT])
def test_recurrences_are_right_without_their_rule(name: str) -> None:
    (func,) = dict(RECURRENT)[name](gpu())
    assert check(RULE, func, gpu(), points=0)


def test_what_is_accessed_unseen_runs_in_one_thread() -> None:
    func = kernel("""
for b, j in T.grid(6, 40):
    T.evaluate(T.call_extern("void", "put", T.address_of(y[b, j]), x[b, j]))
""")
    match: Any = RULE.match(func, gpu())
    made = RULE.schedule(match, RULE.default(match, gpu())).mod["main"]
    _, found = source_of(made, gpu())
    assert [(launch.grid, launch.block_size) for launch in found] == [((1, 1, 1), 1)]


def test_a_kernel_without_elements_launches_nothing() -> None:
    """Rotary embeddings of whole heads have a rest of no columns."""
    device = gpu()
    (func,) = operator(lambda x: op.strided_slice(x, [1], [4], [4]), *floats([3, 4]))(device)
    context = Context(device, pipeline.rules(device="cuda"))
    Schedule().apply(tvm.IRModule({"rest": func}), context)
    (record,) = context.kernels
    assert (record.rule, record.launches) == ("cuda-fallback", ())


def test_functions_without_vectors_take_vectors_of_neighbours_all_the_same() -> None:
    """What they are of is read and written by vectors, whatever is computed between."""
    device = gpu()
    rule = CudaElementwise()
    wide: dict[str, Any] = {}
    for name, function in (("erf", op.erf), ("tanh", op.tanh)):
        (func,) = operator(function, ([64, 4096], "float16"))(device)
        match: Any = rule.match(func, device)
        wide[name] = rule.knobs(match)["vector"]
    assert wide == {"erf": (1, 2, 4, 8), "tanh": (1, 2, 4, 8)}
