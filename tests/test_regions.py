"""Models with parts that only ONNX Runtime computes, against ONNX Runtime on the whole."""

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from onnx_models import FLOAT, INT64, build, node, noise
from region_models import MIDDLES, network

import hybridc
from hybridc.cli.main import run
from hybridc.compiler import instruments
from hybridc.compiler.errors import ArtifactError, InputError, ModelError

X = noise(1, 3, 8, 8)
# What we have converters for; a network around them holds no region.
COMPILED = {"Scan", "LSTM", "Optional", "Det", "SplitToSequence", "TfIdfVectorizer"}


def wanted(model: Any, feed: Any) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model.SerializeToString(), options).run(None, feed)


def agrees(artifact: Any, model: Any, feed: Any) -> list[Any]:
    """Compare all outputs; returns those of the artifact."""
    got = hybridc.InferenceSession(artifact).run(None, feed)
    for value, right in zip(got, wanted(model, feed), strict=True):
        same(value, right)
    return got


def same(value: Any, right: Any) -> None:
    assert type(value) is type(right)
    if isinstance(right, list):
        assert len(value) == len(right)
        for one, other in zip(value, right, strict=True):
            same(one, other)
    elif isinstance(right, np.ndarray) and right.dtype.kind in "fiub":
        assert (value.shape, value.dtype) == (right.shape, right.dtype)
        np.testing.assert_allclose(value, right, rtol=1e-3, atol=1e-4)
    elif isinstance(right, np.ndarray):
        np.testing.assert_array_equal(value, right)
    else:
        assert value == right


@pytest.mark.parametrize("name", MIDDLES)
def test_an_operator_between_convolutions(name: str) -> None:
    model = network(name)
    artifact = hybridc.compile(model, verify="off")
    agrees(artifact, model, {"x": X})
    rules = [kernel["rule"] for kernel in artifact.report["kernels"]]
    assert rules.count("conv2d") == 2
    if name in COMPILED:
        assert artifact.regions == ()
        return
    (region,) = artifact.regions
    assert "Conv" not in region.operators
    assert name in region.operators


def test_two_regions_around_kernels(tmp_path: Path) -> None:
    """Saved, and run in a process of its own, which computes the same."""
    model = network("Loop", "DeformConv")
    artifact = hybridc.compile(model)
    assert [sorted(region.operators) for region in artifact.regions][1] == ["DeformConv"]
    (here,) = agrees(artifact, model, {"x": X})
    artifact.save(tmp_path / "model.hyb")
    np.save(tmp_path / "x.npy", X)
    code = (
        "import sys, numpy, hybridc\n"
        "session = hybridc.InferenceSession(sys.argv[1] + '/model.hyb')\n"
        "y, = session.run(None, {'x': numpy.load(sys.argv[1] + '/x.npy')})\n"
        "numpy.save(sys.argv[1] + '/y.npy', y)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=300)
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), here)


def test_each_pass_leaves_regions_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """The numbers agree after every pass that changed anything."""
    checked: list[str] = []
    original = instruments.NumericVerify.after

    def after(self: Any, step: Any, *modules: Any) -> None:
        original(self, step, *modules)
        checked.append(type(step).__name__)

    monkeypatch.setattr(instruments.NumericVerify, "after", after)
    artifact = hybridc.compile(network("DeformConv"), verify="each")
    assert {"Layout", "Legalize", "Fuse", "Allocate", "PlanMemory"} <= set(checked)
    assert len(artifact.regions) == 1


def test_no_fallback_names_the_operator() -> None:
    with pytest.raises(ModelError, match=r"operator 'DeformConv' .* is not supported"):
        hybridc.compile(network("DeformConv"), fallback=False)


def test_what_onnx_runtime_lacks_is_named() -> None:
    odd = helper.make_node("Frobnicate", ["x"], ["y"], "middle", domain="example")
    model = build(
        [odd],
        [("x", FLOAT, [2, 3])],
        [("y", FLOAT, [2, 3])],
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("example", 1)],
    )
    with pytest.raises(ModelError, match=r"operator 'Frobnicate' .node 'middle'. is not supported"):
        hybridc.compile(model)


def test_a_whole_model_may_be_a_region() -> None:
    """Its output has sizes that depend on the data."""
    model = build([node("NonZero", "x", "y")], [("x", FLOAT, [2, 3])], [("y", INT64, None)])
    artifact = hybridc.compile(model)
    x = np.array([[0, 1, 0], [2, 0, 3]], np.float32)
    agrees(artifact, model, {"x": x})
    session = hybridc.InferenceSession(artifact)
    (output,) = session.get_outputs()
    assert (output.shape, output.type) == ([2, None], "tensor(int64)")
    for feed in (x, np.zeros_like(x), x):  # what one call made is not the next one's
        same(session.run(None, {"x": feed})[0], np.stack(np.nonzero(feed)))
    same(session(x), np.stack(np.nonzero(x)))


def test_strings_come_and_go() -> None:
    model = build(
        [node("StringConcat", "a b", "s"), node("Neg", "x", "y")],
        [("a", TensorProto.STRING, [2]), ("b", TensorProto.STRING, ["n"]), ("x", FLOAT, [2])],
        [("s", TensorProto.STRING, None), ("y", FLOAT, None)],
    )
    artifact = hybridc.compile(model)
    words = np.array(["un", "ä"], object)
    got = agrees(artifact, model, {"a": words, "b": np.array(["do"]), "x": np.ones(2, "float32")})
    assert list(got[0]) == ["undo", "ädo"]
    session = hybridc.InferenceSession(artifact)
    assert session.get_inputs()[1].type == "tensor(string)"
    joined, negative = session(words, np.array(["do"]), np.ones(2, "float32"))
    assert list(joined) == ["undo", "ädo"]
    same(negative, -np.ones(2, "float32"))


def test_sequences_come_and_go() -> None:
    """From one region to the next too, beside the convolution between them."""
    value = helper.make_tensor_sequence_value_info("s", FLOAT, None)
    nodes = [
        node("SequenceAt", "s zero", "a"),
        node("Reshape", "a shape", "x"),
        node("Conv", "x k", "c"),
        node("SequenceInsert", "s c", "t"),
        node("SequenceLength", "t", "n"),
    ]
    model = build(
        nodes,
        [],
        [("n", INT64, None), ("c", FLOAT, None)],
        {"zero": np.int64(0), "shape": np.array([1, 3, 8, 8]), "k": noise(4, 3, 3, 3)},
    )
    model.graph.input.append(value)
    model.graph.output.append(helper.make_tensor_sequence_value_info("t", FLOAT, None))
    artifact = hybridc.compile(model, verify="off")
    assert [dict(r.operators) for r in artifact.regions] == [
        {"SequenceAt": 1, "Reshape": 1},
        {"SequenceInsert": 1, "SequenceLength": 1},
    ]
    agrees(artifact, model, {"s": [X, X[0]]})


def test_a_sequence_of_a_region_reaches_the_next() -> None:
    """Two regions that share a sequence, with a convolution between them."""
    nodes = [
        node("SplitToSequence", "x", "s", axis=1, keepdims=1),
        node("SequenceAt", "s one", "a"),
        node("Reshape", "a shape", "r"),
        node("Conv", "r k", "c"),
        node("SequenceInsert", "s c", "t"),
    ]
    model = build(
        nodes,
        [("x", FLOAT, [1, 3, 8, 8])],
        [("c", FLOAT, None)],
        {"one": np.int64(1), "shape": np.array([1, 1, 8, 8]), "k": noise(2, 1, 3, 3)},
    )
    model.graph.output.append(helper.make_tensor_sequence_value_info("t", FLOAT, None))
    artifact = hybridc.compile(model)
    assert len(artifact.regions) == 2
    agrees(artifact, model, {"x": X})


def test_tensors_without_elements_and_scalars() -> None:
    nodes = [
        node("Det", "x", "d"),
        node("ReduceSum", "d", "y", keepdims=0),
        node("Neg", "e", "minus"),
        node("Unique", "minus", "u first"),
        node("Shape", "u", "z"),
    ]
    model = build(
        nodes,
        [("x", FLOAT, [0, 3, 3]), ("e", FLOAT, [0])],
        [("y", FLOAT, None), ("d", FLOAT, None), ("z", INT64, None)],
    )
    feed = {"x": np.zeros((0, 3, 3), np.float32), "e": np.zeros(0, np.float32)}
    agrees(hybridc.compile(model, verify="off"), model, feed)


def test_a_damaged_shape_is_an_error_of_the_call() -> None:
    """The model says that three numbers are not zero; the error is ONNX Runtime's, in a line."""
    model = build(
        [node("NonZero", "x", "n"), node("Reshape", "n shape", "r"), node("Cast", "r", "y", to=1)],
        [("x", FLOAT, [3])],
        [("y", FLOAT, None)],
        {"shape": np.array([3])},
    )
    session = hybridc.InferenceSession(hybridc.compile(model, verify="off"))
    same(session.run(None, {"x": np.ones(3, np.float32)})[0], np.arange(3, dtype=np.float32))
    with pytest.raises(InputError, match="ONNX Runtime fails in region0"):
        session.run(None, {"x": np.zeros(3, np.float32)})
    same(session.run(None, {"x": np.ones(3, np.float32)})[0], np.arange(3, dtype=np.float32))


def test_sessions_do_not_mix() -> None:
    """Both have a region of the same name; called from many threads, each computes its own."""
    sessions: list[Any] = []
    rights: list[Any] = []
    for scale in (1.0, 3.0):
        model = build(
            [node("Mul", "x s", "m"), node("Det", "m", "y")],
            [("x", FLOAT, [4, 3, 3])],
            [("y", FLOAT, None)],
            {"s": np.float32(scale)},
        )
        sessions.append(hybridc.InferenceSession(hybridc.compile(model, verify="off"), 1))
        rights.append(wanted(model, {"x": noise(4, 3, 3)})[0])
    wrong: list[Any] = []

    def call(index: int) -> None:
        for _ in range(20):
            (y,) = sessions[index].run(None, {"x": noise(4, 3, 3)})
            if not np.allclose(y, rights[index], rtol=1e-4):
                wrong.append((index, y))

    threads = [threading.Thread(target=call, args=(index % 2,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_without_regions_onnx_runtime_is_not_imported(tmp_path: Path) -> None:
    model = build([node("Relu", "x", "y")], [("x", FLOAT, [2, 3])], [("y", FLOAT, None)])
    hybridc.compile(model).save(tmp_path / "model.hyb")
    code = (
        "import sys, numpy, hybridc\n"
        f"s = hybridc.InferenceSession({str(tmp_path / 'model.hyb')!r})\n"
        "s.run(None, {'x': numpy.zeros((2, 3), 'float32')})\n"
        "assert 'onnxruntime' not in sys.modules and 'onnx' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


def test_without_onnx_runtime_a_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = hybridc.compile(network("DeformConv"), verify="off")
    assert artifact.manifest()["toolchain"]["onnxruntime"] == onnxruntime.__version__
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ArtifactError, match="is not installed: pip install onnxruntime"):
        hybridc.InferenceSession(artifact)


@pytest.mark.usefixtures("known_peaks")
def test_the_command_line_tells(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = tmp_path / "model.onnx", tmp_path / "model.hyb"
    onnx.save(network("DeformConv"), path)
    page = tmp_path / "page.html"
    assert run(["compile", str(path), "-o", str(out), "--report", str(page)]) == 0
    assert "regions: 1 handed to ONNX Runtime: 1 operator (DeformConv)" in capsys.readouterr().out
    assert "Regions computed by ONNX Runtime" in page.read_text()
    assert run(["inspect", str(out), "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)["regions"]
    assert told["operators"] == {"DeformConv": 1}
    assert told["outputs"] == ["g0 float32[1,4,8,8]"]
    assert (
        run(["bench", str(out), "--kernels", "--seconds", "0.05", "--repeat", "1", "--json"]) == 0
    )
    kernels = json.loads(capsys.readouterr().out)["profile"]["kernels"]
    assert ("region0", "onnxruntime") in [(k["kernel"], k["rule"]) for k in kernels]
    assert run(["compile", str(path), "-o", str(out), "--no-fallback"]) == 2
    assert "operator 'DeformConv' (node computing 'g0') is not supported" in capsys.readouterr().err
