"""Operators are imported, expanded, or refused by name; the oracle is ONNX Runtime."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper
from onnx_models import BOOL, DOUBLE, FLOAT, INT64, build, check, node, noise, relu

import hybridc
from hybridc.compiler.artifacts import specs
from hybridc.compiler.errors import ModelError
from hybridc.compiler.frontend import load
from hybridc.compiler.ir.evaluate import evaluate
from hybridc.compiler.model import TensorSpec, random_feed


def test_unsupported_operators_are_named_and_counted() -> None:
    nodes = [node("DeformConv", "x w o", "a", name="deform_1")]
    nodes += [node("RandomNormalLike", "x", f"n{i}") for i in range(3)]
    nodes += [node("RandomUniformLike", "x", "u")]
    model = build(
        nodes,
        [
            ("x", FLOAT, [1, 1, 3, 3]),
            ("w", FLOAT, [1, 1, 2, 2]),
            ("o", FLOAT, [1, 8, 2, 2]),
        ],
        [(name, FLOAT, None) for name in ("a", "n0", "n1", "n2", "u")],
    )
    message = (
        r"operator 'DeformConv' \(node 'deform_1'\) is not supported; "
        r"2 others: RandomNormalLike x3, RandomUniformLike x1$"
    )
    with pytest.raises(ModelError, match=message):
        load(model)


def test_operators_that_onnx_does_not_know() -> None:
    model = build([node("Frobnicate", "x", "y")], [("x", FLOAT, [1])], [("y", FLOAT, [1])])
    with pytest.raises(ModelError, match=r"operator 'Frobnicate' \(node computing 'y'\) is not"):
        load(model)


def test_the_nearest_name_is_told() -> None:
    model = build([node("Reluu", "x", "y")], [("x", FLOAT, [1])], [("y", FLOAT, [1])])
    wanted = r"operator 'Reluu' .* is not supported: ONNX has .* name; did you mean 'Relu'\?$"
    for fallback in (True, False):
        with pytest.raises(ModelError, match=wanted):
            hybridc.compile(model, fallback=fallback)


def test_operators_of_other_domains_are_not_taken_for_standard_ones() -> None:
    model = build(
        [node("Relu", "x", "y", domain="my.own")],
        [("x", FLOAT, [1])],
        [("y", FLOAT, [1])],
        opset_imports=[helper.make_opsetid("", 20), helper.make_opsetid("my.own", 1)],
    )
    with pytest.raises(ModelError, match=r"operator 'Relu' .* is not supported"):
        load(model)


def test_an_axis_that_is_a_scalar() -> None:
    """As torch writes that of groups of heads."""
    made = node("Unsqueeze", "x a", "y")
    model = build([made], [("x", FLOAT, [2, 3])], [("y", FLOAT, None)], {"a": np.array(-2)})
    check(load(model), {"x": noise(2, 3)})


EXPANDED: list[tuple[str, Callable[[], Any]]] = [
    (
        "attention",
        lambda: build(
            [node("Attention", "q k v", "y")],
            [("q", FLOAT, [1, 2, 4, 8]), ("k", FLOAT, [1, 2, 6, 8]), ("v", FLOAT, [1, 2, 6, 8])],
            [("y", FLOAT, None)],
            opset=23,
        ),
    ),
    (
        "layer norm statistics",
        lambda: build(
            [node("LayerNormalization", "x s b", "y m i")],
            [("x", FLOAT, [2, 3, 4])],
            [("y", FLOAT, None), ("m", FLOAT, None), ("i", FLOAT, None)],
            {"s": noise(4), "b": noise(4)},
        ),
    ),
    (
        "rms norm of two axes",
        lambda: build(
            [node("RMSNormalization", "x s", "y", axis=1)],
            [("x", FLOAT, [2, 3, 4])],
            [("y", FLOAT, None)],
            {"s": noise(3, 4)},
            opset=23,
        ),
    ),
    (
        "celu by default",
        lambda: build([node("Celu", "x", "y")], [("x", FLOAT, [3])], [("y", FLOAT, None)]),
    ),
    (
        "celu",
        lambda: build(
            [node("Celu", "x", "y", alpha=2.0)], [("x", FLOAT, [3])], [("y", FLOAT, None)]
        ),
    ),
    (
        "swish",
        lambda: build(
            [node("Swish", "x", "y")], [("x", FLOAT, [3])], [("y", FLOAT, None)], opset=24
        ),
    ),
    (
        "loss",
        lambda: build(
            [node("SoftmaxCrossEntropyLoss", "x l", "y")],
            [("x", FLOAT, [2, 3]), ("l", INT64, [2])],
            [("y", FLOAT, None)],
            opset=13,
        ),
    ),
    (
        "rotary embedding",
        lambda: build(
            [node("RotaryEmbedding", "x c s p", "y")],
            [("x", FLOAT, [2, 3, 4, 8]), ("p", INT64, [2, 4])],
            [("y", FLOAT, None)],
            {"c": noise(50, 4), "s": noise(50, 4)},
            opset=23,
        ),
    ),
]


@pytest.mark.parametrize("make", [make for _, make in EXPANDED], ids=[name for name, _ in EXPANDED])
def test_operators_defined_by_others_are_expanded(make: Callable[[], Any]) -> None:
    check(load(make()))


@pytest.mark.parametrize("mode", ["half_pixel", "output_half_pixel"])
@pytest.mark.parametrize("pooled", ["max", "avg"])
@pytest.mark.parametrize(("density", "scale"), [(1, 1.0), (2, 0.5), (3, 1.7), (0, 0.5), (0, 1.7)])
def test_regions_of_images(mode: str, pooled: str, density: int, scale: float) -> None:
    if pooled == "max" and not density:
        pytest.skip("as many samples as a region has pixels: of averages alone")
    options: dict[str, Any] = {"coordinate_transformation_mode": mode, "mode": pooled}
    options |= {"output_height": 3, "output_width": 2, "sampling_ratio": density}
    model = build(
        [node("RoiAlign", "x r i", "y", spatial_scale=scale, **options)],
        [("x", FLOAT, [2, 3, 7, 5]), ("r", FLOAT, [6, 4]), ("i", INT64, [6])],
        [("y", FLOAT, None)],
        opset=22,
    )
    # Beyond the image, of no extent, turned round.
    corners = [[0, 0, 4, 6], [-3, 1, 2, 9], [4, 4, 4, 4], [3, 5, 1, 2], [0.3, 0.7, 1.1, 5.2]]
    regions = np.array([*corners, [-9, -9, -4, -4]], np.float32)
    check(load(model), {"x": noise(2, 3, 7, 5), "r": regions, "i": np.array([0, 1, 1, 0, 1, 0])})


@pytest.mark.parametrize("op", ["Div", "Mod"])
@pytest.mark.parametrize("size", [40, "n"])
def test_random_divisors_are_not_zero(op: str, size: int | str) -> None:
    nodes = [node("Cast", "d", "w", to=INT64), node("Neg", "x", "m"), node(op, "m w", "y")]
    inputs = [("x", INT64, [size]), ("d", TensorProto.INT8, [size])]
    model = load(build(nodes, inputs, [("y", INT64, None)]))
    again = specs.from_json(list(map(specs.to_json, model.inputs)))
    assert again == model.inputs
    x, d = random_feed(again, seed=3).values()
    assert set(x) == {0, 1}
    assert set(d) == {1, 2}
    if size != "n":
        check(model)


@pytest.mark.parametrize("size", [40, "n"])
def test_random_indices_are_of_the_whole_axis(size: int | str) -> None:
    nodes = [
        node("Unsqueeze", "i a", "j"),
        node("Gather", "t j", "g"),
        node("ReduceSum", "g", "s"),
        node("Gather", "p k", "q", axis=-1),
        node("Cast", "m", "h", to=FLOAT),
    ]
    inputs = [(name, INT64, [size]) for name in "ikm"]
    outputs = [(name, FLOAT, None) for name in "sqh"]
    tables = {"t": noise(300, 2), "p": noise(2, 5), "a": np.array([0])}
    model = load(build(nodes, inputs, outputs, tables))
    assert specs.from_json(list(map(specs.to_json, model.inputs))) == model.inputs
    i, k, m = random_feed(model.inputs, 0, {"n": 400}).values()
    assert (i.min() >= 0, 100 < i.max() < 128) == (True, True)
    assert set(k) == {*range(5)}
    assert set(m) == {0, 1}
    if size != "n":
        check(model)


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_random_bytes_have_every_bit(dtype: str) -> None:
    (x,) = random_feed([TensorSpec("x", (400,), dtype)]).values()
    assert (x.dtype, np.ptp(x.astype(int)) > 200) == (np.dtype(dtype), True)


def test_random_regions_are_of_an_image_that_is_there() -> None:
    model = build(
        [node("RoiAlign", "x r i", "y", output_height=2, output_width=2, sampling_ratio=2)],
        [("x", FLOAT, [1, 3, 7, 5]), ("r", FLOAT, [9, 4]), ("i", INT64, [9])],
        [("y", FLOAT, None)],
        opset=22,
    )
    check(load(model))


def test_forms_that_a_converter_lacks_are_refused() -> None:
    model = build(
        [node("Dropout", "x r t", "y", name="drop")],
        [("x", FLOAT, [3])],
        [("y", FLOAT, None)],
        {"r": np.float32(0.5), "t": np.array(True)},
    )
    with pytest.raises(ModelError, match=r"operator 'Dropout' .node 'drop'. is not supported with"):
        load(model)


@pytest.mark.parametrize("opset", [10, 20])
def test_the_mask_of_a_dropout_keeps_everything_since_it_is_defined(opset: int) -> None:
    used = build(
        [node("Dropout", "x", "y m")],
        [("x", FLOAT, [2, 3])],
        [("y", FLOAT, None), ("m", BOOL, None)],
        opset=opset,
    )
    check(load(used))


def test_a_size_that_depends_on_data_is_told() -> None:
    model = build(
        [node("Relu", "x", "r"), node("ReduceSum", "r k", "v", name="sum")],
        [("x", FLOAT, [4]), ("k", INT64, [1])],
        [("v", FLOAT, None)],
    )
    with pytest.raises(ModelError, match=r"operator 'ReduceSum' \(node 'sum'\) cannot be imported"):
        load(model)
    check(load(relu()))  # the failure left nothing behind


@pytest.mark.parametrize("kind", ["AveragePool", "LpPool"])
def test_windows_that_reach_beyond_the_padding(kind: str) -> None:
    sizes = [([6, 6], [3, 3], [2, 2], [0] * 4), ([6, 5], [3, 3], [2, 2], [1] * 4)]
    sizes += [([2, 3], [3, 5], [2, 3], [0] * 4), ([7], [4], [3], [0, 1]), ([7], [1], [4], [0, 0])]
    sizes += [([5, 4, 6], [2, 3, 3], [2, 2, 2], [0, 1, 0, 1, 0, 0])]
    for image, window, strides, pads in sizes:
        given = {"kernel_shape": window, "strides": strides, "pads": pads, "ceil_mode": 1}
        counted = {"count_include_pad": 1} if kind == "AveragePool" else {}
        x = noise(1, 2, *image)
        model = build(
            [node(kind, "x", "y", **given, **counted)],
            [("x", FLOAT, list(x.shape))],
            [("y", FLOAT, None)],
        )
        check(load(model), {"x": x})


def test_the_variance_of_what_is_nearly_the_same() -> None:
    """ONNX's own definition subtracts squares, of which nothing is left here."""
    x = 3000 + noise(1, 3, 8, 8)
    model = build(
        [node("MeanVarianceNormalization", "x", "y", axes=[2, 3])],
        [("x", FLOAT, list(x.shape))],
        [("y", FLOAT, None)],
    )
    precise = x.astype(np.float64)
    axes = {"axis": (2, 3), "keepdims": True}
    wanted = (precise - precise.mean(**axes)) / precise.std(**axes)
    (got,) = evaluate(load(model).module, [x])
    np.testing.assert_allclose(got, wanted, atol=2e-3)


@pytest.mark.parametrize("dtype", [INT64, DOUBLE])
def test_big_constants_keep_their_type(dtype: int) -> None:
    """TVM's own constants of these types are half as wide."""
    rows = np.arange(20_000, dtype=helper.tensor_dtype_to_np_dtype(dtype)).reshape(-1, 2)
    model = build(
        [node("Gather", "table chosen", "y")],
        [("chosen", INT64, [3])],
        [("y", dtype, [3, 2])],
        {"table": rows * (2**33 + 1)},
    )
    check(load(model), {"chosen": np.array([0, 77, 9_999])})
