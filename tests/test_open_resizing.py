"""Images resized along open sizes, in every way that ONNX has."""

from itertools import product
from typing import Any

import numpy as np
import pytest
from onnx import helper
from onnx_models import FLOAT, build, node, noise

from hybridc.compiler import driver
from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.frontends.onnx_reference import OnnxReference
from hybridc.compiler.runtime.session import InferenceSession

COORDINATES = ("half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel")
ROUNDINGS = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
SCALES = (0.5, 1.5)
GIVEN = (*(["", f"scales{by}"] for by in SCALES), ["", "", "sizes"])
# The width times three, over two and one more.
WIDER = [
    node("Shape", "x", "shape"),
    node("Slice", "shape zero last", "front"),
    node("Slice", "shape last end", "w"),
    node("Mul", "w three", "thrice"),
    node("Div", "thrice two", "half"),
    node("Add", "half one", "wide"),
    node("Concat", "front wide", "sizes", axis=0),
]
NUMBERS = {
    name: np.array([value])
    for name, value in (("zero", 0), ("one", 1), ("two", 2), ("three", 3), ("last", 3), ("end", 4))
}


def resizes(mode: str) -> tuple[list[Any], list[str]]:
    """A Resize of each kind, and their outputs."""
    made: list[Any] = []
    for number, (coordinates, given) in enumerate(product(COORDINATES, GIVEN)):
        options = {"mode": mode, "coordinate_transformation_mode": coordinates}
        # Each with one of the roundings, so that every rounding has each way of a size.
        options["nearest_mode"] = ROUNDINGS[(number + number // len(GIVEN)) % len(ROUNDINGS)]
        output = f"{coordinates}_{options['nearest_mode']}_{given[-1]}"
        made.append(helper.make_node("Resize", ["x", *given], [output], **options))
    return made, [each.output[0] for each in made]


SLOW = pytest.mark.slow
FIXED_BY_OPEN = ("fixed", "sizes")


@pytest.mark.parametrize(
    "mode", [pytest.param("nearest", marks=SLOW), "linear", pytest.param("cubic", marks=SLOW)]
)
def test_images_along_an_open_width(mode: str) -> None:
    nodes, outputs = resizes(mode)
    proto = build(
        [*WIDER, *nodes],
        [("x", FLOAT, [1, 1, 3, "w"])],
        [(name, FLOAT, None) for name in outputs],
        {**NUMBERS, **{f"scales{by}": np.array([1, 1, 1, by], np.float32) for by in SCALES}},
    )
    outcome = driver.compile_source(proto, Options(threads=1, verify="off"))
    assert any("w is at least 2" in note for note in outcome.report.notes)
    session = InferenceSession(outcome.artifact, 1)
    reference = OnnxReference(proto)  # ONNX's own where ONNX Runtime reads another operator
    for width in (2, 3, 4, 7, 33):
        x = noise(1, 1, 3, width)
        wanted = reference({"x": x})
        for name, got, right in zip(outputs, session.run(None, {"x": x}), wanted, strict=True):
            assert got.shape == right.shape
            np.testing.assert_allclose(got, right, 1e-3, 1e-4, err_msg=f"{name} of {width}")


@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_places_as_tensorflow_counts_them(mode: str) -> None:
    """As tf2onnx writes them before opset 13, by sizes and by scales of open axes and of fixed."""
    how = {"coordinate_transformation_mode": "tf_half_pixel_for_nn", "nearest_mode": "floor"}
    given = (*(["none", f"scales{by}"] for by in (2.0, *SCALES)), ["none", "none", "sizes"])
    every = [(x, rest) for x in ("x", "fixed") for rest in given if (x, rest[-1]) != FIXED_BY_OPEN]
    nodes = [
        helper.make_node("Resize", [x, *rest], [f"{x}_{rest[-1]}"], mode=mode, **how)
        for x, rest in every
    ]
    scales = {f"scales{by}": np.array([1, 1, 1, by], np.float32) for by in (2.0, *SCALES)}
    proto = build(
        [*WIDER, *nodes],
        [("x", FLOAT, [1, 1, 3, "w"]), ("fixed", FLOAT, [1, 1, 3, 9])],
        [(each.output[0], FLOAT, None) for each in nodes],
        {**NUMBERS, **scales, "none": np.zeros(0, np.float32)},
        opset=11,
    )
    session = InferenceSession(
        driver.compile_source(proto, Options(threads=1, verify="off", fallback=False)).artifact, 1
    )
    for width in (2, 7, 33):
        feed = {"x": noise(1, 1, 3, width), "fixed": noise(1, 1, 3, 9)}
        wanted = OnnxReference(proto)(feed)
        for each, got, right in zip(nodes, session.run(None, feed), wanted, strict=True):
            np.testing.assert_allclose(got, right, 1e-5, 1e-5, err_msg=each.output[0])


def test_halves_are_rounded_up_where_the_batch_is_open() -> None:
    """As ONNX Runtime rounds them, which follows no float32: of 13 places, 7 or 1 are taken."""
    ends = [(3, 7), (3, 1), (5, 13), (2, 26)]
    pairs = list(product(("tf_half_pixel_for_nn", "half_pixel", "align_corners"), ends))
    how = {"mode": "nearest", "nearest_mode": "round_prefer_ceil"}
    nodes = [node("Shape", "x", "shape"), node("Slice", "shape zero two", "front")]
    for number, (coordinates, _) in enumerate(pairs):
        given, made = f"s{number}", f"y{number}"
        nodes.append(node("Concat", f"front end{number}", given, axis=0))
        option = {"coordinate_transformation_mode": coordinates, **how}
        nodes.append(node("Resize", f"x none none {given}", made, **option))
    proto = build(
        nodes,
        [("x", FLOAT, ["batch", 1, 3, 13])],
        [(f"y{number}", FLOAT, None) for number in range(len(pairs))],
        {
            **{name: NUMBERS[name] for name in ("zero", "two")},
            **{f"end{number}": np.array(end) for number, (_, end) in enumerate(pairs)},
            "none": np.zeros(0, np.float32),
        },
        opset=11,
    )
    outcome = driver.compile_source(proto, Options(threads=1, verify="off", fallback=False))
    feed = {"x": noise(2, 1, 3, 13)}
    got = InferenceSession(outcome.artifact, 1).run(None, feed)
    for made, wanted, pair in zip(got, OnnxReference(proto)(feed), pairs, strict=True):
        np.testing.assert_array_equal(made, wanted, err_msg=str(pair))
