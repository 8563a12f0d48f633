"""Operators that Python computes inside a region: strings' case, and images."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from onnx_models import FLOAT, INT64, build, call, node, noise

import hybridc
from hybridc.cli.main import run
from hybridc.compiler.errors import InputError, ModelError

STRING = TensorProto.STRING


def words(*each: str) -> Any:
    return np.array(each, object)


def normaliser(shape: Any = ("n",), **options: Any) -> Any:
    nodes = [node("StringNormalizer", "x", "y", **options)]
    return build(nodes, [("x", STRING, shape)], [("y", STRING, None)])


@pytest.mark.parametrize(
    ("options", "given", "wanted"),
    [
        ({}, ["A", "b"], ["A", "b"]),
        ({"case_change_action": "LOWER"}, ["Ä b", "İ", ""], ["ä b", "i̇", ""]),
        ({"case_change_action": "UPPER"}, ["straße", "ﬁ"], ["STRASSE", "FI"]),
        ({"stopwords": ["the"]}, ["The", "tree", "the top"], ["tree", "the top"]),
        ({"stopwords": ["the"], "is_case_sensitive": 1}, ["The", "the"], ["The"]),
        ({"stopwords": ["a", "b"]}, ["A", "B"], [""]),
    ],
)
def test_strings(options: dict[str, Any], given: list[str], wanted: list[str]) -> None:
    (got,) = call(normaliser(**options), words(*given), verify="off")
    assert list(got) == wanted
    (rows,) = call(normaliser(shape=(1, "n"), **options), words(*given)[None], verify="off")
    assert rows.tolist() == [wanted]


def test_what_is_compiled_is_compared_with_onnx_runtime() -> None:
    """Its own locale is not needed for that."""
    model = normaliser(case_change_action="UPPER", stopwords=["tree"], locale="en_US")
    (got,) = call(model, words("Tree", "äpfel"))
    assert list(got) == ["ÄPFEL"]


def test_a_language_with_letters_of_its_own_is_refused() -> None:
    with pytest.raises(ModelError, match="the locale 'tr_TR' are not supported"):
        hybridc.compile(normaliser(case_change_action="UPPER", locale="tr_TR"))


def mixed() -> Any:
    """Strings that ONNX Runtime joins, Python changes and ONNX Runtime compares; and numbers."""
    nodes = [
        node("StringConcat", "a b", "joined"),
        node("StringNormalizer", "joined", "lower", case_change_action="LOWER"),
        node("RegexFullMatch", "lower", "fits", pattern="[a-z]+"),
        node("Cast", "fits", "ones", to=FLOAT),
        node("Relu", "x", "r"),
        node("Add", "ones r", "y"),
        node("StringNormalizer", "lower", "upper", case_change_action="UPPER"),
    ]
    given = [("a", STRING, [3]), ("b", STRING, [3]), ("x", FLOAT, [3])]
    return build(nodes, given, [("y", FLOAT, [3]), ("upper", STRING, None)])


def test_between_operators_of_onnx_runtime(tmp_path: Path) -> None:
    """The artifact is a file that holds nothing but ONNX."""
    artifact = hybridc.compile(mixed(), verify="off")
    artifact.save(tmp_path / "model.hyb")
    session = hybridc.InferenceSession(tmp_path / "model.hyb")
    x = np.array([1, -1, 2], np.float32)
    feed = {"a": words("Aa", "B1", "c"), "b": words("x", "y", ""), "x": x}
    for _ in range(2):
        y, upper = session.run(None, feed)
        np.testing.assert_array_equal(y, [2, 0, 3])
        assert list(upper) == ["AAX", "B1Y", "C"]


def test_the_command_line_tells_who_computes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tmp_path / "model.onnx", tmp_path / "model.hyb"
    onnx.save(mixed(), path)
    assert run(["compile", str(path), "-o", str(out), "--verify", "off"]) == 0
    assert "of these in Python: StringNormalizer" in capsys.readouterr().out
    assert run(["inspect", str(out), "--json"]) == 0
    assert "StringNormalizer" in json.dumps(json.loads(capsys.readouterr().out)["regions"])
    assert run(["compile", str(path), "-o", str(out), "--no-fallback"]) == 2


def test_sequences_pass_by() -> None:
    """What Python does not look into goes from ONNX Runtime to ONNX Runtime."""
    nodes = [
        node("StringSplit", "s", "parts count", delimiter=","),
        node("Reshape", "parts line", "flat"),
        node("StringNormalizer", "flat", "y", case_change_action="UPPER"),
    ]
    model = build(
        nodes,
        [("s", STRING, [1])],
        [("y", STRING, None), ("count", INT64, None)],
        {"line": np.array([-1])},
    )
    y, count = call(model, words("a,b,c"), verify="off")
    assert (list(y), count.tolist()) == (["A", "B", "C"], [3])


def encoded(form: str, mode: str = "RGB") -> tuple[Any, Any]:
    """A file's bytes, and the pixels that it was made from."""
    image = pytest.importorskip("PIL.Image")
    pixels = np.random.default_rng(1).integers(0, 256, (5, 7, 3)).astype(np.uint8)
    buffer = io.BytesIO()
    picture = image.fromarray(pixels).convert(mode)
    picture.save(buffer, form)
    return np.frombuffer(buffer.getvalue(), np.uint8), np.asarray(picture.convert("RGB"))


def decoder(form: str) -> Any:
    nodes = [node("ImageDecoder", "x", "y", pixel_format=form)]
    return build(nodes, [("x", TensorProto.UINT8, ["n"])], [("y", TensorProto.UINT8, None)])


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L"])
def test_images(mode: str) -> None:
    content, pixels = encoded("PNG", mode)
    model = decoder("RGB")
    artifact = hybridc.compile(model, shapes={"x": content.shape}, verify="off")
    (got,) = hybridc.InferenceSession(artifact).run(None, {"x": content})
    np.testing.assert_array_equal(got, pixels)


def test_other_orders_of_channels() -> None:
    content, pixels = encoded("BMP")
    for form in ("BGR", "Grayscale"):
        artifact = hybridc.compile(decoder(form), shapes={"x": content.shape}, verify="off")
        (got,) = hybridc.InferenceSession(artifact).run(None, {"x": content})
        if form == "BGR":
            np.testing.assert_array_equal(got, pixels[:, :, ::-1])
        else:
            grey = pixels @ np.array([0.299, 0.587, 0.114])
            np.testing.assert_allclose(got[:, :, 0], grey, atol=1)


def test_what_is_no_image_is_an_error_of_the_call() -> None:
    pytest.importorskip("PIL.Image")
    artifact = hybridc.compile(decoder("RGB"), shapes={"x": (9,)}, verify="off")
    with pytest.raises(InputError, match="not an image"):
        hybridc.InferenceSession(artifact).run(None, {"x": np.zeros(9, np.uint8)})


def test_noise_is_not_disturbed() -> None:
    """Compiled code before and behind a region that Python computes."""
    nodes = [
        node("MatMul", "x w", "h"),
        node("Relu", "h", "y"),
        node("StringNormalizer", "s", "t", case_change_action="UPPER"),
    ]
    given = [("x", FLOAT, [2, 3]), ("s", STRING, [1])]
    model = build(nodes, given, [("y", FLOAT, None), ("t", STRING, None)], {"w": noise(3, 4)})
    y, t = call(model, noise(2, 3), words("a"))
    np.testing.assert_allclose(y, np.maximum(noise(2, 3) @ noise(3, 4), 0), rtol=1e-4, atol=1e-5)
    assert list(t) == ["A"]
