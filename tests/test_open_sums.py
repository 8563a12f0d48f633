"""Open sizes that are sums of others, and other shapes that language models leave open."""

from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx_models import noise
from open_models import Builder

from hybridc.compiler import dims, driver, frontend
from hybridc.compiler.artifacts import specs
from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.dims import Dim
from hybridc.compiler.errors import InputError
from hybridc.compiler.model import TensorSpec, random_feed
from hybridc.compiler.runtime.session import InferenceSession


def compare(proto: Any, *trials: dict[str, int]) -> InferenceSession:
    """Compile, and compare with ONNX Runtime at these sizes; returns the session."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    reference = onnxruntime.InferenceSession(proto.SerializeToString(), options)
    ours = InferenceSession(driver.compile_source(proto, Options(threads=1)).artifact)
    for sizes in trials:
        feed = random_feed(ours.artifact.inputs, 3, sizes)
        answers: list[Any] = list(reference.run(None, feed))
        for got, wanted in zip(ours.run(None, feed), answers, strict=True):
            assert got.shape == wanted.shape
            np.testing.assert_allclose(got, wanted, 1e-4, 1e-5)
    return ours


def with_past(mask: str) -> Any:
    """A cache and new rows joined, plus a mask for each of both."""
    b = Builder()
    whole = b.op("Concat", "past", "x", axis=1)
    y = b.op("Add", whole, b.op("Unsqueeze", "mask", b.ints(2)))
    given = {"x": ((2, "n", 4), "float32"), "past": ((2, "p", 4), "float32")}
    return b.model({"mask": ((2, mask), "float32"), **given}, {y: "float32"})


def test_a_length_of_its_own_name_is_the_sum_of_two() -> None:
    ours = compare(with_past("total"), {"n": 3, "p": 5}, {"n": 1, "p": 70})
    assert "total is n + p" in frontend.load(with_past("total")).notes
    feed = {"x": noise(2, 3, 4), "past": noise(2, 5, 4), "mask": noise(2, 9)}
    with pytest.raises(InputError, match=r"'total' of input 'mask' is 9, and n \+ p is 8"):
        ours.run(None, feed)


def test_a_name_may_be_a_sum() -> None:
    loaded = frontend.load(with_past("p + n"))
    assert loaded.inputs[0].shape[1] == Dim("p + n", parts=("p", "n"))
    given = frontend.load(with_past("total"), shapes={"total": "p+n", "n": 1})
    assert given.inputs[0].shape[1] == Dim("p+n", parts=("p",), plus=1)
    fixed = frontend.load(with_past("total"), shapes={"p": 4, "n": 2, "total": "p+n"})
    assert fixed.inputs[0].shape == (2, 6)


def test_sums_are_kept_as_data_and_checked() -> None:
    spec = TensorSpec("m", (Dim("t", parts=("a", "b"), plus=2),), "float32")
    assert specs.from_json([specs.to_json(spec)]) == (spec,)
    assert spec.at({"a": 3, "b": 4}).fixed == (9,)
    assert dims.parse("a+b+2") == Dim("a+b+2", parts=("a", "b"), plus=2)
    others = {"x": ((Dim("a"), Dim("b")), (3, 4))}
    assert dims.bind({**others, "m": (spec.shape, (9,))})["a"] == 3
    with pytest.raises(InputError, match=r"'t' of input 'm' is 8, and a \+ b \+ 2 is 9"):
        dims.bind({**others, "m": (spec.shape, (8,))})


def test_the_end_of_a_table_bounds_a_length() -> None:
    """As slopes of ALiBi are taken: the last of the table, of as many as there are tokens."""
    b = Builder()
    start = b.op("Sub", b.ints(12), b.size("x", 1))
    table = b.op("Slice", b.noise(1, 12, 1), start, b.ints(2**62), b.ints(1))
    y = b.op("Add", "x", table)
    ours = compare(b.model({"x": ((2, "n", 4), "float32")}, {y: "float32"}), {"n": 5}, {"n": 12})
    assert ours.artifact.inputs[0].describe() == "x float32[2,n:1..12,4]"


def test_a_table_that_the_reference_runs_out_of_bounds_what_is_compared() -> None:
    b = Builder()
    size = b.op("Gather", b.op("Shape", "x"), b.constant(np.int64(1)))
    places = b.op("Range", b.constant(np.int64(0)), size, b.constant(np.int64(1)))
    y = b.op("Add", "x", b.op("Gather", b.noise(30, 4), places))
    compare(b.model({"x": ((2, "n", 4), "float32")}, {y: "float32"}), {"n": 30})


def test_open_repeats() -> None:
    b = Builder()
    one = b.ints(1)
    batch = b.op("Concat", one, b.size("x", 1), one, axis=0)
    y = b.op("Tile", b.noise(2, 3, 4), batch)
    z = b.op("Tile", "x", b.ints(3, 1, 2))
    compare(b.model({"x": ((2, "n", 4), "float32")}, {y: "float32", z: "float32"}), {"n": 5})


@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
def test_an_open_number_of_steps(kind: str) -> None:
    b, gates = Builder(), {"GRU": 3, "LSTM": 4}[kind]
    options = {"linear_before_reset": 1} if kind == "GRU" else {}
    weights = [b.noise(2, gates * 5, 3), b.noise(2, gates * 5, 5), b.noise(2, 2 * gates * 5)]
    y = b.op(kind, "x", *weights, hidden_size=5, direction="bidirectional", **options)
    model = b.model({"x": (("t", "n", 3), "float32")}, {y: "float32"})
    last = f"{y}_last"
    model.graph.node[0].output.append(last)
    model.graph.output.add().CopyFrom(model.graph.output[0])
    model.graph.output[1].name = last
    compare(model, {"t": 1, "n": 1}, {"t": 37, "n": 3})


def test_a_sum_that_was_given_has_parts_that_are_sizes() -> None:
    with pytest.raises(InputError, match=r"length\+n has no size 'length'"):
        frontend.load(with_past("total"), shapes={"total": "length+n"})
