"""Hostile and damaged files are refused in a line, within limits, and nothing crashes or hangs."""

import faulthandler
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import onnx
import pytest
from hostile_models import HOSTILE, damaged, saved, whole, written
from hypothesis import HealthCheck, given, settings
from onnx import TensorProto, helper

from hybridc.cli import main
from hybridc.compiler.errors import InputError, ModelError
from hybridc.compiler.frontends.onnx_graph import model_file
from hybridc.compiler.processes import untrusted
from hybridc.compiler.processes.untrusted import Inspector


@pytest.fixture(scope="module")
def inspector() -> Iterator[Inspector]:
    with closing(Inspector()) as made:
        yield made


SLOW = ("deep branches", "loops in loops")  # until the limit of 10 s ends the reader


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] if n in SLOW else []) for n in HOSTILE]
)
def test_hostile_models_are_refused(inspector: Inspector, tmp_path: Path, name: str) -> None:
    path = written(tmp_path, name)
    with pytest.raises(InputError) as caught:
        inspector.examine(path, {})
    assert "\n" not in str(caught.value)


def test_a_good_model_is_let_through(inspector: Inspector, tmp_path: Path) -> None:
    inspector.examine(saved(tmp_path, whole()), {})
    untrusted.glance(saved(tmp_path, whole()))


def test_data_behind_a_link_are_not_read(inspector: Inspector, tmp_path: Path) -> None:
    model = HOSTILE["data at an absolute path"]()
    model.graph.initializer[0].external_data[0].value = "link"
    secret = tmp_path / "outside" / "secret"
    secret.parent.mkdir()
    secret.write_bytes(b"secret..")
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "link").symlink_to(secret)
    with pytest.raises(ModelError, match="links out of the model's directory"):
        inspector.examine(saved(folder, model.SerializeToString()), {})
    (folder / "link").unlink()
    (folder / "link").hardlink_to(secret)
    with pytest.raises(ModelError, match="no hard link"):
        inspector.examine(saved(folder, model.SerializeToString()), {})


def test_a_glance_leaves_big_weights_where_they_are(tmp_path: Path) -> None:
    """A model of more bytes than a glance may take, most of which lie in a file beside it."""
    columns = 4 * untrusted.MEMORY // 3
    weight = onnx.TensorProto(name="w", data_type=TensorProto.UINT8, dims=[1, columns])
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="w.bin")
    with (tmp_path / "w.bin").open("wb") as file:
        file.truncate(columns)  # a hole: it takes no room on the disk
    value = helper.make_tensor_value_info
    x, y = (value(name, TensorProto.UINT8, [1, columns]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", [x], [y], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    untrusted.glance(saved(tmp_path, model.SerializeToString()))
    os.truncate(tmp_path / "w.bin", columns - 1)
    with pytest.raises(ModelError, match=f"w.bin has {columns - 1} bytes, {columns} are needed"):
        untrusted.glance(saved(tmp_path, model.SerializeToString()))


def test_an_operator_that_cannot_be_imported(inspector: Inspector, tmp_path: Path) -> None:
    """Its shape is no list of integers; the error of that knows its node."""
    model = onnx.ModelProto.FromString(whole())
    model.graph.node[2].input[1] = "r"
    with pytest.raises(ModelError, match="operator 'Reshape'"):
        inspector.examine(saved(tmp_path, model.SerializeToString()), {})


def _said(read: Callable[[Path], None], path: Path) -> str:
    try:
        read(path)
    except InputError as error:
        return str(error)
    return ""


def _examined(inspector: Inspector, folder: Path, content: bytes) -> None:
    """Let through or refused in one line, by either reader."""
    path = saved(folder, content)
    for read in (untrusted.glance, lambda path: inspector.examine(path, {})):
        said = _said(read, path)
        assert "\n" not in said
        assert "ended by" not in said, "a reader crashed"


@settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(damaged())
def test_damaged_models(inspector: Inspector, tmp_path: Path, content: bytes) -> None:
    _examined(inspector, tmp_path, content)


@pytest.mark.slow
@settings(
    max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(damaged())
def test_a_thousand_damaged_models(inspector: Inspector, tmp_path: Path, content: bytes) -> None:
    _examined(inspector, tmp_path, content)


def _crash(*_: Any, **__: Any) -> Any:
    faulthandler.disable()
    os.kill(os.getpid(), signal.SIGSEGV)


def _hog(*_: Any, **__: Any) -> Any:
    return bytearray(2**40)


def _hang(*_: Any, **__: Any) -> Any:
    while True:
        pass


@pytest.mark.parametrize(
    ("reader", "message"),
    [
        (_crash, "its reader was ended by SIGSEGV"),
        (_hog, "reading it takes more than 2.147 GB of memory"),
        (_hang, "reading it takes more than 1 s"),
    ],
)
def test_what_a_glance_survives(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, reader: Any, message: str
) -> None:
    monkeypatch.setattr(model_file, "read", reader)
    monkeypatch.setattr(untrusted, "_GLANCE_SECONDS", 1)
    with pytest.raises(ModelError, match=message):
        untrusted.glance(saved(tmp_path, whole()))


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = saved(tmp_path, whole()[:100])
    assert main.run(["compile", str(path), "-o", str(tmp_path / "x.hyb")]) == 2
    assert "not an ONNX model, or a truncated one" in capsys.readouterr().err
    path = written(tmp_path, "huge range")
    call = ["compile", str(path), "-o", str(tmp_path / "x.hyb"), "--untrusted"]
    assert main.run(call) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert not (tmp_path / "x.hyb").exists()
    good = saved(tmp_path, whole())
    assert main.run(["compile", str(good), "-o", str(tmp_path / "y.hyb"), "--untrusted"]) == 0
