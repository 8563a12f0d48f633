"""Weights as safetensors: every dtype, and refused when malformed."""

import json
from typing import Any

import numpy as np
import pytest
import tvm
from example_artifact import JSON_VALUES
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import relax

from hybridc.compiler.artifacts.weights import DTYPES, decode, encode
from hybridc.compiler.building import weights
from hybridc.compiler.errors import ArtifactError
from hybridc.compiler.model import Array


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=str)
def test_every_dtype_survives(dtype: np.dtype[Any]) -> None:
    array: Array = np.arange(5).astype(dtype)
    back = decode(memoryview(b"".join(encode({"w": array}))))["w"]
    assert back.dtype == dtype
    assert back.tobytes() == array.tobytes()


def test_weights_that_lie_with_gaps_are_stored_as_they_read() -> None:
    array: Array = np.arange(12, dtype=np.float32).reshape(3, 4).T[::2]
    assert not array.flags.c_contiguous
    back = decode(memoryview(b"".join(encode({"w": array}))))["w"]
    np.testing.assert_array_equal(back, array)


def safetensors_bytes(header: Any, data: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


@given(
    entry=st.fixed_dictionaries(
        {
            "dtype": st.sampled_from(["F32", "U8", "BOOL", "X"]) | JSON_VALUES,
            "shape": st.lists(st.integers(-1, 3) | JSON_VALUES, max_size=3) | JSON_VALUES,
            "data_offsets": st.lists(st.integers(-1, 70) | JSON_VALUES, max_size=3) | JSON_VALUES,
        }
    )
    | JSON_VALUES,
    data=st.binary(max_size=70),
)
@settings(max_examples=300)
def test_wrong_weights_are_refused(entry: Any, data: bytes) -> None:
    try:
        found = decode(memoryview(safetensors_bytes({"w": entry}, data)))
    except ArtifactError:
        return
    assert found["w"].tobytes() == data


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (b"", "header is missing"),
        (b"\xff" * 20, "impossibly long"),
        (safetensors_bytes([]), "is not a JSON object"),
        ((3).to_bytes(8, "little") + b"{,}", "not valid JSON"),
        ((200_000).to_bytes(8, "little") + b"[" * 200_000, "not valid JSON"),
        (safetensors_bytes({}, b"x"), "1 bytes belong to no tensor"),
        (safetensors_bytes({"w": {"dtype": "F33", "shape": [], "data_offsets": [0, 4]}}), "F3"),
        (
            safetensors_bytes({"w": {"dtype": "U8", "shape": [1], "data_offsets": [1, 2]}}, b"12"),
            "leaves a gap",
        ),
        (
            safetensors_bytes({"w": {"dtype": "U8", "shape": [0, 2**70], "data_offsets": [0, 0]}}),
            "impossible shape",
        ),
    ],
)
def test_malformed_weights_say_what_is_wrong(member: bytes, message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        decode(memoryview(member))


def test_a_name_that_stands_twice_is_refused() -> None:
    entry = '{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'
    text = f'{{"w":{entry},"w":{entry}}}'.encode()
    with pytest.raises(ArtifactError, match="twice"):
        decode(memoryview(len(text).to_bytes(8, "little") + text))


def test_equal_constants_are_stored_once() -> None:
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((4,), "float32"))
    given = np.array([1, -0.0, np.nan, 3], "float32")
    others = [given.copy(), np.array([1, 0.0, np.nan, 3], "float32"), given.view("int32")]
    with builder.function("main", [x]):
        terms = [relax.const(tvm.runtime.tensor(each)) for each in (given, *others)]
        builder.emit_func_output(builder.emit(relax.Tuple([x, *terms])))
    _, arrays = weights.lift_weights(builder.finalize())
    assert [str(each.dtype) for each in arrays.values()] == ["float32", "float32", "int32"]
    np.testing.assert_array_equal(arrays["w0"].view("int32"), given.view("int32"))
    np.testing.assert_array_equal(arrays["w1"].view("int32"), others[1].view("int32"))


@pytest.mark.parametrize("many", [True, False])
def test_each_constant_is_read_in_full_once_at_most(
    many: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small whole numbers differ where they are sampled; what differs elsewhere is read once."""
    read: list[int] = []
    module: Any = weights
    digest = module._digest

    def noted(data: Array) -> bytes:
        read.append(data.size)
        found: bytes = digest(data)
        return found

    monkeypatch.setattr(module, "_digest", noted)
    given = [np.zeros(2**16, np.float32) for _ in range(12)]
    for i, array in enumerate(given):
        array[slice(0, None, 2) if many else -2] = i + 1
    builder = relax.BlockBuilder()
    with builder.function("main", []):
        terms = [relax.const(tvm.runtime.tensor(each)) for each in (*given, given[3])]
        builder.emit_func_output(relax.Tuple(terms))
    _, arrays = weights.lift_weights(builder.finalize())
    np.testing.assert_array_equal(list(arrays.values()), given)
    assert len(read) == (2 if many else 13)
