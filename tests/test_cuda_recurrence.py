"""Recurrent layers on a GPU: kernels against TVM's own code, models against ONNX Runtime."""

from typing import Any

import numpy as np
import pytest
from cuda_emulator import ORDERS, needs_compiler, run
from cuda_kernels import check, close, feed, gpu, reference
from cuda_models import answers, records
from kernel_corpus import RECURRENT
from test_recurrence import layer

from hybridc.compiler import pipeline, plugin
from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.kernels import recurrence

RULE = {plugin.name_of(type(rule)): rule for rule in pipeline.rules(device="cuda")}[
    "cuda-recurrence"
]


@needs_compiler
@pytest.mark.parametrize("name", [name for name, _ in RECURRENT])
def test_recurrences_are_those_of_the_unscheduled_kernel(name: str) -> None:
    device = gpu()
    (func,) = dict(RECURRENT)[name](device)
    assert check(RULE, func, device, points=1)


@needs_compiler
@pytest.mark.parametrize("name", [name for name, _ in RECURRENT])
def test_a_launch_for_each_step_computes_the_same(name: str) -> None:
    device = gpu()
    (func,) = dict(RECURRENT)[name](device)
    match: Any = RULE.match(func, device)
    made = RULE.schedule(match, {"threads": 64, "launches": 1}).mod["main"]
    arrays = feed(func)
    wanted = reference(func, arrays)
    for order in ORDERS:
        for got, right in zip(run(made, arrays, device, order), wanted, strict=True):
            close(got, right, 1e-5, f"threads in order {order}")


@needs_compiler
@pytest.mark.parametrize("operator", ["LSTM", "GRU"])
def test_a_layer_answers_as_its_reference(operator: str) -> None:
    source = layer(operator, 4, 2, (5, 70), "bidirectional", bias=True)
    options = Options(target="sm_90a")
    rules = {record.rule for record in records(source, options)}
    assert "cuda-recurrence" in rules
    assert "cuda-fallback" not in rules
    for got, wanted in zip(*answers(source, options), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("hidden", "batch", "launches"), [(64, 1, 0), (1024, 1, 1), (64, 200, 0)])
def test_wide_states_are_computed_by_all_multiprocessors(
    hidden: int, batch: int, launches: int
) -> None:
    found: Any = RULE.match(recurrence.kernel("LSTM", 2, batch, hidden, reverse=False), gpu())
    assert RULE.default(found, gpu())["launches"] == launches


def test_a_state_without_room_is_in_the_gpus_memory() -> None:
    device = gpu("sm_75")
    found: Any = RULE.match(recurrence.kernel("RNN", 1, 1, 9000, reverse=False), device)
    assert RULE.default(found, device)["launches"] == 1
    assert RULE.canonical(found, {"threads": 64, "launches": 0})["launches"] == 1
