"""Our converters of ONNX operators; oracles are ONNX Runtime, numpy and ONNX's reference."""

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from onnx_models import BOOL, FLOAT, INT64, build, check, node, noise

from hybridc.compiler.errors import ModelError
from hybridc.compiler.frontend import load
from hybridc.compiler.frontends.onnx_import.importer import converters

FEW = settings(
    max_examples=8,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
INT32 = TensorProto.INT32


def computed(model: Any, feed: dict[str, Any]) -> list[Any]:
    """Our outputs, held to ONNX's own reference."""
    from hybridc.compiler.ir.evaluate import evaluate

    loaded = load(model)
    got: list[Any] = [*evaluate(loaded.module, [feed[spec.name] for spec in loaded.inputs])]
    wanted: Any = ReferenceEvaluator(model).run(None, feed)
    for value, right in zip(got, wanted, strict=True):
        assert value.shape == np.shape(right)
        np.testing.assert_allclose(value, right, rtol=1e-4, atol=1e-5)
    return got


def test_no_operator_is_converted_twice() -> None:
    assert {"LSTM", "Resize", "DFT", "Pad"} <= converters().keys()


GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}


@FEW
@given(
    op=st.sampled_from(sorted(GATES)),
    direction=st.sampled_from(["forward", "reverse", "bidirectional"]),
    lengths=st.booleans(),
    states=st.booleans(),
    late=st.booleans(),
    clip=st.sampled_from([None, 0.5]),
)
def test_recurrent_operators(
    op: str, direction: str, lengths: bool, states: bool, late: bool, clip: float | None
) -> None:
    time, batch, size, hidden = 3, 2, 4, 5
    ways, gates = 1 + (direction == "bidirectional"), GATES[op]
    constants = {
        "w": noise(ways, gates * hidden, size),
        "r": noise(ways, gates * hidden, hidden),
        "b": noise(ways, 2 * gates * hidden),
    }
    names = ["x", "w", "r", "b", "", ""]
    if lengths:
        names[4], constants["l"] = "l", np.array([3, 2], np.int32)
    if states:
        names[5], constants["h"] = "h", noise(ways, batch, hidden)
    options: dict[str, Any] = {"direction": direction, "hidden_size": hidden}
    options |= {"linear_before_reset": int(late)} if op == "GRU" else {}
    options |= {"clip": clip} if clip else {}
    outputs = ["y", "h_last", "c_last"][: 3 if op == "LSTM" else 2]
    made = helper.make_node(op, [n if n != "l" else "l" for n in names], outputs, **options)
    check(
        load(
            build(
                [made],
                [("x", FLOAT, [time, batch, size])],
                [(name, FLOAT, None) for name in outputs],
                constants,
                opset=14,
            )
        )
    )


def test_lstm_with_peepholes_and_a_cell() -> None:
    constants = {"w": noise(1, 12, 2), "r": noise(1, 12, 3), "b": noise(1, 24)}
    constants |= {"h": noise(1, 2, 3), "c": noise(1, 2, 3), "p": noise(1, 9)}
    made = helper.make_node("LSTM", ["x", "w", "r", "b", "", "h", "c", "p"], ["y"], hidden_size=3)
    check(load(build([made], [("x", FLOAT, [4, 2, 2])], [("y", FLOAT, None)], constants, opset=14)))


@FEW
@given(
    mode=st.sampled_from(["nearest", "linear", "cubic"]),
    coordinates=st.sampled_from(
        ["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel", "half_pixel_symmetric"]
    ),
    scale=st.sampled_from([0.6, 0.8, 1.5, 2.0, 2.3]),
    exclude=st.booleans(),
)
def test_resize(mode: str, coordinates: str, scale: float, exclude: bool) -> None:
    options: dict[str, Any] = {"mode": mode, "coordinate_transformation_mode": coordinates}
    options |= {"exclude_outside": 1} if exclude and mode == "cubic" else {}
    made = helper.make_node("Resize", ["x", "", "s"], ["y"], **options)
    x = np.arange(30, dtype=np.float32).reshape(1, 1, 5, 6)
    scales = {"s": np.array([1, 1, scale, 2], np.float32)}
    model = build([made], [("x", FLOAT, x.shape)], [("y", FLOAT, None)], scales, opset=19)
    computed(model, {"x": x})


@pytest.mark.parametrize("mode", ["reflect", "edge", "wrap", "constant"])
def test_pad(mode: Any) -> None:
    constants = {"p": np.array([1, -1, 2, 0]), "v": np.float32(3)}
    made = node("Pad", "x p v" if mode == "constant" else "x p", "y", mode=mode)
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    model = build([made], [("x", FLOAT, [3, 4])], [("y", FLOAT, None)], constants, opset=19)
    wide = [(1, 2), (0, 0)]
    options: dict[str, Any] = {"constant_values": 3} if mode == "constant" else {}
    from hybridc.compiler.ir.evaluate import evaluate

    (got,) = evaluate(load(model).module, [x])
    np.testing.assert_array_equal(got, np.pad(x[:, 1:], wide, mode, **options))


@pytest.mark.parametrize("shape", [(5, 3), (4, 7, 2), (1, 6, 2, 3)])
@pytest.mark.parametrize("time", [0, 1])
def test_reversed_sequences(shape: tuple[int, ...], time: int) -> None:
    x = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    steps, many = shape[time], shape[1 - time]
    lengths = np.arange(many) % (steps + 1)
    made = node("ReverseSequence", "x l", "y", time_axis=time, batch_axis=1 - time)
    given = [("x", FLOAT, shape), ("l", TensorProto.INT64, [many])]
    from hybridc.compiler.ir.evaluate import evaluate

    (got,) = evaluate(load(build([made], given, [("y", FLOAT, None)])).module, [x, lengths])
    wanted = x.swapaxes(0, time).copy()
    for sequence, length in enumerate(lengths):
        wanted[:length, sequence] = wanted[:length, sequence][::-1]
    np.testing.assert_array_equal(got, wanted.swapaxes(0, time))


@pytest.mark.parametrize("length", [64, 90, 127, 400])
def test_half_of_a_spectrum(length: int) -> None:
    made, x = node("DFT", "x n", "y", onesided=1), noise(3, 96, 1)
    result = [("y", FLOAT, None)]
    model = build([made], [("x", FLOAT, x.shape)], result, {"n": np.array(length)})
    from hybridc.compiler.ir.evaluate import evaluate

    (got,) = evaluate(load(model).module, [x])
    np.testing.assert_allclose(got @ [1, 1j], np.fft.rfft(x[..., 0], length), 1e-6, 1e-5)
    assert not np.any(got[:, 0, 1])  # what is real is so exactly


@pytest.mark.parametrize("inverse", [0, 1])
@pytest.mark.parametrize("length", [5, 8, 64, 90, 127, 400])
def test_dft(inverse: int, length: int) -> None:
    made, constants = node("DFT", "x n a", "y", inverse=inverse), {"n": np.array(length)}
    x, constants["a"] = noise(2, 96 if length > 8 else 6, 3, 2), np.array(1)
    model = build([made], [("x", FLOAT, x.shape)], [("y", FLOAT, None)], constants)
    from hybridc.compiler.ir.evaluate import evaluate

    (got,) = evaluate(load(model).module, [x])
    wanted = (np.fft.fft, np.fft.ifft)[inverse](x[..., 0] + 1j * x[..., 1], length, axis=1)
    np.testing.assert_allclose(got[..., 0] + 1j * got[..., 1], wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [np.int32, np.int64])
def test_integer_powers(kind: Any) -> None:
    code = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    made, x = node("Pow", "x y", "z"), np.array([0, 1, -1, 2, -3, 7], kind)
    from hybridc.compiler.ir.evaluate import evaluate

    for power in (0, 1, 5):
        given = {"y": np.array(power, kind)}
        model = build([made], [("x", code, [6])], [("z", code, None)], given)
        (got,) = evaluate(load(model).module, [x])
        np.testing.assert_array_equal(got, x**power)
    unknown = build([made], [("x", code, [6]), ("y", code, [6])], [("z", code, None)])
    with pytest.raises(ModelError, match="with integers and powers that are not one constant"):
        load(unknown)
    helped = load(unknown, fallback=True)
    assert [dict(region.operators) for region in helped.regions] == [{"Pow": 1}]


@pytest.mark.parametrize("direction", ["LEFT", "RIGHT"])
def test_shifts_by_more_than_the_width(direction: str) -> None:
    x, y = np.array([-8, 4, -1, 5], np.int32), np.array([32, 33, -1, 1], np.int32)
    code = helper.np_dtype_to_tensor_dtype(np.dtype(np.int32))
    made = node("BitShift", "x y", "z", direction=direction)
    model = build([made], [("x", code, [4]), ("y", code, [4])], [("z", code, None)], opset=28)
    from hybridc.compiler.ir.evaluate import evaluate

    (got,) = evaluate(load(model).module, [x, y])
    wanted = [0, 0, 0, 10] if direction == "LEFT" else [-1, 0, -1, 2]
    np.testing.assert_array_equal(got, wanted)


def test_a_transform_is_one_sided_by_default() -> None:
    made = helper.make_node("STFT", ["x", "step", "", "n"], ["y"])
    constants = {"step": np.array(8), "n": np.array(16)}
    model = build([made], [("x", FLOAT, [1, 64, 1])], [("y", FLOAT, None)], constants)
    helped = load(model, fallback=True)
    assert helped.regions == ()
    assert helped.outputs[0].shape == (1, 7, 9, 2)


def test_what_onnx_knows_no_shape_of_is_still_ours() -> None:
    made = helper.make_node("MaxUnpool", ["x", "i", "s"], ["y"], kernel_shape=[2], strides=[2])
    constants = {"s": np.array([1, 1, 5])}
    inputs = [("x", FLOAT, [1, 1, 2]), ("i", INT64, [1, 1, 2])]
    helped = load(build([made], inputs, [("y", FLOAT, None)], constants), fallback=True)
    assert helped.regions == ()
    assert helped.outputs[0].shape == (1, 1, 5)


@pytest.mark.parametrize("fmod", [0, 1])
@pytest.mark.parametrize("kind", [np.int8, np.int32, np.float32])
def test_mod(kind: Any, fmod: int) -> None:
    x = np.array([-7, 7, -8, 8, 0, 5], kind)
    y = np.array([3, -3, 4, -4, 5, 5], kind)
    code = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    inputs = [("x", code, [6]), ("y", code, [6])]
    model = build([node("Mod", "x y", "z", fmod=fmod)], inputs, [("z", code, None)])
    from hybridc.compiler.ir.evaluate import evaluate

    (got,) = evaluate(load(model).module, [x, y])
    np.testing.assert_array_equal(got, np.fmod(x, y) if fmod else np.mod(x, y))


def test_det_pivots() -> None:
    x = noise(3, 4, 4)
    x[0, 0, 0] = 0
    x[1, :, 0] = 0
    model = build([node("Det", "x", "y")], [("x", FLOAT, x.shape)], [("y", FLOAT, None)])
    computed(model, {"x": x})


def test_scan_and_loop_are_written_out() -> None:
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [node("Add", "s e", "t"), node("Identity", "t", "o")],
        "body",
        [value("s", FLOAT, [2]), value("e", FLOAT, [2])],
        [value("t", FLOAT, [2]), value("o", FLOAT, [2])],
    )
    scan = helper.make_node(
        "Scan",
        ["x", "xs"],
        ["last", "all"],
        body=body,
        num_scan_inputs=1,
        scan_input_directions=[1],
        scan_output_directions=[1],
    )
    turns = helper.make_graph(
        [node("Identity", "c", "d"), node("Mul", "v two", "w")],
        "turns",
        [value("i", INT64, []), value("c", BOOL, []), value("v", FLOAT, [2])],
        [value("d", BOOL, []), value("w", FLOAT, [2])],
    )
    loop = helper.make_node("Loop", ["n", "", "last"], ["y"], body=turns)
    constants = {"n": np.array(3), "two": np.full(2, 2, np.float32)}
    inputs = [("x", FLOAT, [2]), ("xs", FLOAT, [4, 2])]
    model = build([scan, loop], inputs, [("y", FLOAT, [2]), ("all", FLOAT, [4, 2])], constants)
    check(load(model))


def test_a_loop_that_depends_on_the_data_is_refused() -> None:
    value = helper.make_tensor_value_info
    turns = helper.make_graph(
        [node("Identity", "c", "d"), node("Identity", "v", "w")],
        "turns",
        [value("i", INT64, []), value("c", BOOL, []), value("v", FLOAT, [2])],
        [value("d", BOOL, []), value("w", FLOAT, [2])],
    )
    loop = helper.make_node("Loop", ["n", "", "x"], ["y"], body=turns)
    inputs = [("n", INT64, []), ("x", FLOAT, [2])]
    with pytest.raises(ModelError, match=r"operator 'Loop' .* is not supported"):
        load(build([loop], inputs, [("y", FLOAT, [2])]))


def test_functions_with_inputs_left_out_are_written_out() -> None:
    made = helper.make_node("Attention", ["q", "k", "v", "", "pk", "pv"], ["y", "nk", "nv"])
    shape = [1, 2, 3, 4]
    inputs = [(name, FLOAT, shape) for name in ("q", "k", "v", "pk", "pv")]
    outputs = [(name, FLOAT, None) for name in ("y", "nk", "nv")]
    check(load(build([made], inputs, outputs, opset=23)))


def test_one_hot_of_indices_outside() -> None:
    model = build(
        [node("OneHot", "i d v", "y", axis=0)],
        [("i", INT32, [4])],
        [("y", FLOAT, None)],
        {"d": np.array(3), "v": np.array([2, 5], np.float32)},
    )
    computed(model, {"i": np.array([-1, 0, 3, -4], np.int32)})
