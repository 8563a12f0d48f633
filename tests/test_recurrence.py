"""Recurrent layers as one kernel, against ONNX Runtime."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper
from onnx_models import FLOAT, build, noise
from test_contractions import FEW

from hybridc.compiler import target
from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.driver import compile_source
from hybridc.compiler.frontends.onnx_reference import OnnxReference
from hybridc.compiler.hardware.machine import Machine
from hybridc.compiler.kernels import recurrence
from hybridc.compiler.runtime.session import InferenceSession
from hybridc.schedules.recurrence import Recurrence, Steps


def layer(
    operator: str,
    time: int,
    batch: int,
    sizes: tuple[int, int],
    direction: str,
    bias: bool,
    lengths: Sequence[int] = (),
) -> Any:
    """A model of one layer whose first states are inputs; `lengths` of the sequences, or all."""
    inputs, hidden = sizes
    ways, gates = 1 + (direction == "bidirectional"), recurrence.gates_of(operator)
    scale = np.float32(hidden**-0.5)
    constants = {
        "w": noise(ways, gates * hidden, inputs) * scale,
        "r": noise(ways, gates * hidden, hidden) * scale,
    }
    constants |= {"b": noise(ways, 2 * gates * hidden)} if bias else {}
    constants |= {"n": np.array(lengths, np.int32)} if lengths else {}
    names = ["x", "w", "r", "b" if bias else "", "n" if lengths else "", "h"]
    state = ("h", FLOAT, [ways, batch, hidden])
    given = [("x", FLOAT, [time, batch, inputs]), state]
    outputs = ["y", "h_last"]
    options: dict[str, Any] = {"direction": direction, "hidden_size": hidden}
    if operator == "LSTM":
        names, outputs = [*names, "c"], [*outputs, "c_last"]
        given.append(("c", *state[1:]))
    if operator == "GRU":
        options["linear_before_reset"] = 1
    node = helper.make_node(operator, names, outputs, **options)
    return build([node], given, [(name, FLOAT, None) for name in outputs], constants, opset=14)


def agree(model: Any, rule: bool = True) -> None:
    outcome = compile_source(model, Options(verify="off", threads=2))
    session = InferenceSession(outcome.artifact)
    feed = {spec.name: noise(*spec.shape) for spec in outcome.artifact.inputs}  # pyright: ignore[reportArgumentType]
    got = session.run(None, feed)
    for value, wanted in zip(got, OnnxReference(model)(feed), strict=True):
        np.testing.assert_allclose(value, wanted, rtol=1e-4, atol=1e-5)
    assert ("recurrence" in {kernel.rule for kernel in outcome.report.kernels}) == rule


LAYERS = given(
    operator=st.sampled_from(["RNN", "GRU", "LSTM"]),
    time=st.integers(1, 6),
    batch=st.integers(1, 4),
    sizes=st.tuples(st.integers(1, 20), st.sampled_from([1, 3, 15, 16, 17, 32, 40])),
    direction=st.sampled_from(["forward", "reverse", "bidirectional"]),
    bias=st.booleans(),
)


@settings(FEW, max_examples=8)
@LAYERS
def test_layers_of_any_size(
    operator: str, time: int, batch: int, sizes: tuple[int, int], direction: str, bias: bool
) -> None:
    agree(layer(operator, time, batch, sizes, direction, bias))


@pytest.mark.slow
@settings(FEW, max_examples=40)
@LAYERS
def test_many_layers_of_any_size(
    operator: str, time: int, batch: int, sizes: tuple[int, int], direction: str, bias: bool
) -> None:
    agree(layer(operator, time, batch, sizes, direction, bias))


@pytest.mark.parametrize("operator", ["RNN", "GRU", "LSTM"])
def test_one_unit_more_than_a_vector_both_ways(operator: str) -> None:
    agree(layer(operator, 5, 2, (33, 17), "bidirectional", True))


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("operator", ["RNN", "GRU", "LSTM"])
def test_sequences_of_their_own_lengths(operator: str, direction: str) -> None:
    agree(layer(operator, 7, 3, (5, 17), direction, True, lengths=(7, 1, 4)))


@pytest.mark.parametrize("operator", ["GRU", "LSTM"])
def test_long_sequences_take_no_larger_a_program(operator: str) -> None:
    agree(layer(operator, 700, 1, (4, 24), "bidirectional", True))
    few, many = (
        compile_source(
            layer(operator, time, 1, (4, 24), "bidirectional", True),
            Options(verify="off", threads=2),
        )
        for time in (50, 700)
    )
    assert len(few.report.kernels) == len(many.report.kernels)


def test_threads_take_a_large_layer() -> None:
    agree(layer("LSTM", 3, 2, (8, 300), "forward", True))


@pytest.mark.parametrize(("hidden", "threads"), [(32, 0), (192, 1)])
def test_threads_take_what_one_core_reads_slowly(hidden: int, threads: int) -> None:
    """Few multiply-adds a weight: the cache that holds the weights is what a step waits for."""
    cpu = replace(target.parse("avx512", threads=2), l1=1 << 15, l2=1 << 20, machine=Machine())
    func = recurrence.kernel("LSTM", 7, 1, hidden, reverse=False)
    match = Recurrence().match(func, cpu)
    assert isinstance(match, Steps)
    assert Recurrence().default(match, cpu)["threads"] == threads


@pytest.mark.parametrize(
    ("operator", "batch", "hidden"), [("LSTM", 8, 20), ("GRU", 5, 70), ("RNN", 11, 33)]
)
def test_tiles_of_several_sequences(operator: str, batch: int, hidden: int) -> None:
    """The last tile has fewer, and the weights of more units than stay near come in pieces."""
    agree(layer(operator, 3, batch, (6, hidden), "bidirectional", True))
