"""Attention by a buffer of keys of which the call says how many count."""

from typing import Any

import numpy as np
import pytest
from onnx_models import check
from test_microsoft_decoders import Arrays, group_query, grouped, tables

import hybridc
from hybridc.compiler.frontend import load
from hybridc.compiler.ir.evaluate import evaluate

HELD = 9


def told(length: int, total: int, **more: Any) -> Arrays:
    fed, constants = grouped(length, HELD, total, **more)
    return {**fed, **constants}


@pytest.mark.parametrize(
    ("length", "options"),
    [(1, {}), (3, {"local_window_size": 4}), (1, {"do_rotary": 1}), (3, {"causal": 0})],
)
def test_any_number_counts(length: int, options: Arrays) -> None:
    constants = tables() if options.get("do_rotary") else {}
    model = load(group_query(told(length, HELD), constants, **options))
    assert not model.regions
    for total in (length, length + 1, 6, HELD):
        check(model, told(length, total))


def test_sequences_of_a_batch_have_their_own() -> None:
    more: Arrays = {"batch": 3, "ends": [5, 3, 0]}
    check(load(group_query(told(1, 6, **more), {})), told(1, 6, **more))


def test_a_model_is_compared_on_inputs_that_make_sense() -> None:
    artifact = hybridc.compile(group_query(told(1, HELD), {}), fallback=False)
    spans = {spec.name: spec.span for spec in artifact.inputs if spec.span is not None}
    assert spans == {"ends": (HELD - 1, HELD - 1), "total": (HELD, HELD)}


def test_more_than_there_are_places_for_is_no_number() -> None:
    model = load(group_query(told(1, HELD), {}))
    fed = told(1, HELD + 1)
    got = evaluate(model.module, [fed[spec.name] for spec in model.inputs])[0]
    assert np.isnan(got).all()
