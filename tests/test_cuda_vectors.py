"""Elementwise kernels on a GPU whose threads have vectors of neighbours."""

from typing import Any

import numpy as np
import pytest
from cuda_emulator import needs_compiler, run, source_of
from cuda_kernels import close, feed, gpu, halves, reference
from cuda_models import answers, records
from kernel_builders import Builder, floats, op, operator
from onnx_models import FLOAT, build, node

from hybridc.compiler import pipeline, plugin
from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.interfaces import PrimFunc

RULE = next(
    rule
    for rule in pipeline.rules(device="cuda")
    if plugin.name_of(type(rule)) == "cuda-elementwise"
)


def _joined(x: Any, y: Any) -> Any:
    return op.concat([x, y], 1)


# Each kernel, and the widest vector that it allows.
CASES: dict[str, tuple[Builder, int]] = {
    "a function without vectors": (operator(op.nn.gelu, *floats([3, 40])), 4),
    "16 bits": (operator(op.nn.gelu, *halves([5, 24])), 8),
    "wider inputs": (operator(lambda x: op.astype(x, "float16"), *floats([6, 20])), 4),
    "bytes": (operator(lambda x: op.add(x, x), ([3, 32], "int8")), 16),
    "a bias": (operator(op.add, *floats([7, 16], [16])), 4),
    "a number of each row": (operator(op.multiply, *floats([7, 16], [7, 1])), 4),
    "parts of whole vectors": (operator(_joined, *floats([3, 8], [3, 4])), 4),
    "parts of half vectors": (operator(_joined, *floats([3, 6], [3, 2])), 2),
    "one more row of a cut": (
        operator(
            lambda x, y: op.concat(
                [x, op.reshape(op.strided_slice(y, [1], [24], [48]), [3, 1, 8])], 1
            ),
            *floats([3, 5, 8], [1, 72]),
        ),
        4,
    ),
    "rows of two": (operator(lambda x, y: op.concat([x, y], 0), *floats([3, 8], [2, 8])), 4),
    "zeros around": (operator(lambda x: op.nn.pad(x, [0, 0, 4, 4]), *floats([3, 8])), 4),
    "zeros in odd places": (operator(lambda x: op.nn.pad(x, [0, 0, 3, 5]), *floats([3, 8])), 1),
    "chosen by elements": (
        operator(op.where, ([4, 8], "bool"), *floats([4, 8], [4, 8])),
        1,
    ),
    "rows by number": (
        operator(lambda x, i: op.take(x, i, axis=0), ([9, 8], "float32"), ([5], "int64")),
        4,
    ),
    "every other": (
        operator(lambda x: op.strided_slice(x, [1], [0], [16], [2]), *floats([3, 16])),
        4,
    ),
    "odd rows": (operator(op.nn.relu, *floats([3, 7])), 1),
}


def _func(builder: Builder) -> PrimFunc:
    return builder(gpu())[-1]


@needs_compiler
@pytest.mark.parametrize("name", CASES)
def test_vectors_are_those_of_the_unscheduled_kernel(name: str) -> None:
    builder, widest = CASES[name]
    device, func = gpu(), _func(builder)
    match: Any = RULE.match(func, device)
    assert max(match.vectors) == widest
    arrays = feed(func)
    wanted = reference(func, arrays)
    for vector in match.vectors:
        made = RULE.schedule(match, {"threads": 64, "vector": vector}).mod["main"]
        for got, right in zip(run(made, arrays, device), wanted, strict=True):
            close(got, right, 1e-6, f"vectors of {vector}")


def test_memory_is_read_and_written_by_vectors() -> None:
    """What a concatenation reads is decided once for a vector."""
    device, func = gpu(), _func(CASES["parts of whole vectors"][0])
    match: Any = RULE.match(func, device)
    made = RULE.schedule(match, {"threads": 64, "vector": 4}).mod["main"]
    source, _ = source_of(made, device)
    kernel = source[source.index('extern "C"') :]
    assert kernel.count("hybridc_vector<float, 4>") == 3
    assert kernel.count("if (") - kernel.count("? ") <= 2


GPU = Options(target="sm_90a")


def _cached(turned: bool) -> Any:
    """A layer of a cache, perhaps with its axes the other way round, and what comes new."""
    weights = {"layer": np.array(1, "int64")}
    shape = (2, 3, 32, 16) if turned else (2, 3, 16, 32)
    taken = node("Gather", "cache layer", "old", axis=0)
    how: dict[str, Any] = {"perm": [0, 2, 1]} if turned else {}
    through = node("Transpose" if turned else "Neg", "old", "ready", **how)
    joined = node("Concat", "ready new", "y", axis=1)
    inputs = [("cache", FLOAT, shape), ("new", FLOAT, (3, 1, 32))]
    return build([taken, through, joined], inputs, [("y", FLOAT, (3, 17, 32))], weights)


@needs_compiler
@pytest.mark.parametrize("turned", [False, True])
def test_what_is_joined_is_read_in_one_pass_unless_it_is_transposed(turned: bool) -> None:
    """A transpose goes through tiles, which a choice among inputs has not."""
    source = _cached(turned)
    rules = sorted(record.rule for record in records(source, GPU))
    assert rules == ["cuda-elementwise", *(["cuda-transpose"] if turned else [])]
    got, wanted = answers(source, GPU)
    np.testing.assert_array_equal(got[0], wanted[0])
