"""Random subsets and orders of passes, as far as their contracts allow, leave the numbers alone."""

import importlib
import random
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hybridc.compiler import frontend, pipeline, plugin
from hybridc.compiler.configuration import plans
from hybridc.compiler.errors import HybridcError
from hybridc.compiler.interfaces import Context, Pass
from hybridc.compiler.ir.evaluate import evaluate

FOLDER = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(scope="module")
def random_operators() -> Iterator[Any]:
    sys.path.insert(0, str(FOLDER))
    yield importlib.import_module("random_operators")
    sys.path.remove(str(FOLDER))


def sequence(draw: random.Random, steps: Sequence[Pass]) -> list[Pass]:
    """Passes on the graph in any order and number; `legalize`; then some of the others in order."""
    names = [plugin.name_of(type(step)) for step in steps]
    at = names.index("legalize")
    graph = draw.choices(steps[:at], k=draw.randint(0, 12))
    needed = {"widen-types", "legalize"}
    rest = [
        step
        for step, name in zip(steps[at - 1 :], names[at - 1 :], strict=True)
        if name in needed or draw.random() < 0.6
    ]
    return graph + rest


def run(model: Any, steps: Sequence[Pass], plan: plans.Plan) -> tuple[Any, list[Pass]]:
    """Apply the passes whose requirements hold, and say which."""
    module, context, done = model.module, Context(plan.target, plan.rules), list[Pass]()
    for step in steps:
        try:
            step.requires(module)
        except HybridcError:
            continue
        done.append(step)
        module = pipeline.run([step], module, context)
    return module, done


def check(random_operators: Any, seed: int) -> None:
    plan = plans.plan(plans.Options(threads=1))
    proto, feed = random_operators.model(seed, 7)
    model = frontend.load(proto)
    wanted = model.reference(feed)
    module, done = run(model, sequence(random.Random(seed), plan.steps), plan)
    got = evaluate(module, list(feed.values()))
    for right, value in zip(wanted, got, strict=True):
        absolute = 1e-4 * max(1.0, float(np.abs(right).max(initial=0)))
        said = f"seed {seed}: {pipeline.text(done)}"
        np.testing.assert_allclose(value, right, rtol=1e-3, atol=absolute, err_msg=said)


@pytest.mark.parametrize("seed", range(6))
def test_few_sequences(random_operators: Any, seed: int) -> None:
    check(random_operators, seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 300))
def test_many_sequences(random_operators: Any, seed: int) -> None:
    check(random_operators, seed)
