"""Files that nobody vouches for: read where they are right, else refused in one line."""

import contextlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from onnx_models import FLOAT, INT64, build, check, node, noise, shared_axes

from hybridc.compiler.errors import InputError, ModelError
from hybridc.compiler.frontend import load


def saved(tmp_path: Path, model: Any) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def weighted(columns: int = 32) -> Any:
    return build(
        [node("MatMul", "x w", "y")],
        [("x", FLOAT, [2, 64])],
        [("y", FLOAT, [2, columns])],
        {"w": noise(64, columns)},
    )


def test_truncated_files(tmp_path: Path) -> None:
    path = saved(tmp_path, weighted())
    whole = path.read_bytes()
    for size in range(0, len(whole), 101):
        path.write_bytes(whole[:size])
        with pytest.raises(ModelError, match=r"^[^\n]+$"):
            load(path)


@pytest.mark.parametrize("content", [b"", b"\x00" * 64, b"not a model", b"PK\x03\x04", b"\x3a\x00"])
def test_garbage(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"^[^\n]*not an? (valid )?ONNX model[^\n]*$"):
        load(path)


def test_altered_bytes_never_escape_as_another_error(tmp_path: Path) -> None:
    path = saved(tmp_path, shared_axes())
    whole = path.read_bytes()
    random = np.random.default_rng(0)
    for position in random.integers(0, len(whole), 60):
        altered = bytearray(whole)
        altered[position] ^= 1 << int(random.integers(0, 8))
        path.write_bytes(bytes(altered))
        with contextlib.suppress(InputError):
            load(path, shapes={"a": (2, 3), "b": (2, 3)})


def test_what_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone.onnx: no such file"):
        load(tmp_path / "gone.onnx")
    with pytest.raises(InputError, match=r"ends in .onnx or .pt2"):
        load("model.tflite")
    with pytest.raises(InputError, match="not dict"):
        load({})


def test_strings_are_refused() -> None:
    model = build(
        [node("Identity", "x", "y")],
        [("x", TensorProto.STRING, [1])],
        [("y", TensorProto.STRING, [1])],
    )
    with pytest.raises(ModelError, match="input 'x' holds strings"):
        load(model)


def external(tmp_path: Path, location: str, columns: int = 32, **entries: int) -> Path:
    """A model whose weight lies in `location`; the directory `inside` holds the model."""
    model = weighted(columns)
    tensor = model.graph.initializer[0]
    data = tensor.raw_data
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=str(value))
    inside = tmp_path / "inside"
    (inside / "sub").mkdir(parents=True)
    for path in (inside / "w.bin", inside / "sub" / "w.bin", tmp_path / "secret"):
        path.write_bytes(b"\0" * 64 + data)
    return saved(inside, model)


@pytest.mark.parametrize("location", ["w.bin", "sub/w.bin", "./w.bin"])
def test_external_data_below_the_model(tmp_path: Path, location: str) -> None:
    model = load(external(tmp_path, location, offset=64, length=8192))
    assert len(model.module["main"].params) == 1
    check(model)


@pytest.mark.parametrize("columns", [256, 320])  # on both sides of what is read past its message
def test_big_external_data(tmp_path: Path, columns: int) -> None:
    path = external(tmp_path, "w.bin", columns, offset=64)
    check(load(path))
    (tmp_path / "inside" / "w.bin").write_bytes(b"\0" * (256 * columns + 63))
    with pytest.raises(ModelError, match=f"{256 * columns + 63} bytes, {256 * columns + 64} are"):
        load(path)


@pytest.mark.parametrize("location", ["/etc/passwd", "../secret", "sub/../../secret", "", "a\0b"])
def test_external_data_elsewhere(tmp_path: Path, location: str) -> None:
    with pytest.raises(ModelError, match="is not below the model's directory"):
        load(external(tmp_path, location))


def test_external_data_through_links(tmp_path: Path) -> None:
    path = external(tmp_path, "link", offset=64)
    link = path.parent / "link"
    link.symlink_to(tmp_path / "secret")
    with pytest.raises(ModelError, match="links out of the model's directory"):
        load(path)
    link.unlink()
    os.link(tmp_path / "secret", link)
    with pytest.raises(ModelError, match="no hard link"):
        load(path)


def test_external_data_through_a_linked_directory(tmp_path: Path) -> None:
    path = external(tmp_path, "out/secret", offset=64)
    (path.parent / "out").symlink_to(tmp_path)
    with pytest.raises(ModelError, match="links out of the model's directory"):
        load(path)


def test_a_model_and_its_data_may_be_links_into_one_directory(tmp_path: Path) -> None:
    """So a model hub's cache keeps them, under the digests of their contents."""
    path = external(tmp_path, "w.bin", offset=64)
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "main"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    for number, file in enumerate((path, path.parent / "w.bin")):
        file.rename(blobs / f"{number}")
        (snapshot / file.name).symlink_to(f"../../blobs/{number}")
    check(load(snapshot / path.name))
    (snapshot / "w.bin").unlink()
    (snapshot / "w.bin").symlink_to("../../secret")
    with pytest.raises(ModelError, match="links out of the model's directory"):
        load(snapshot / path.name)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"offset": 65}, "has 8256 bytes, 8257 are needed"),
        ({"offset": 10**15}, "bytes, .* are needed"),
        ({"offset": 64, "length": 8}, "its shape takes 8192 bytes, its external data has 8"),
        ({"offset": -1}, "must be numbers"),
    ],
)
def test_external_ranges(tmp_path: Path, entries: dict[str, int], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load(external(tmp_path, "w.bin", **entries))


def test_external_data_that_memory_cannot_hold(tmp_path: Path) -> None:
    """A file of holes takes no space on the disk, and may be 8 TiB long."""
    rows, columns = 2**25, 2**16
    proto = weighted(32)
    weight = proto.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.dims[:] = [rows, columns]
    weight.data_location = TensorProto.EXTERNAL
    entry = weight.external_data.add()
    entry.key, entry.value = "location", "w.bin"
    with (tmp_path / "w.bin").open("wb") as file:
        try:
            file.truncate(4 * rows * columns)
        except OSError:
            pytest.skip("this file system has no files so long")
    with pytest.raises(ModelError, match="no memory for 8796093022208 bytes of external data"):
        load(saved(tmp_path, proto))


@pytest.mark.parametrize("location", ["gone.bin", "sub"])
def test_external_data_that_is_no_file(tmp_path: Path, location: str) -> None:
    with pytest.raises(ModelError, match=f"external data {location}"):
        load(external(tmp_path, location))


def test_external_data_of_a_proto(tmp_path: Path) -> None:
    proto = onnx.load(external(tmp_path, "w.bin"), load_external_data=False)
    with pytest.raises(ModelError, match="give the model's path, not its proto"):
        load(proto)


@pytest.mark.parametrize(
    ("size", "declared", "told"),
    [
        (2, [7, 3], "declared [7,3], and is y float32[2,3]"),
        (2, [2], "declared [2], and is y float32[2,3]"),
        ("n", [None, 4], "declared [?,4], and is y float32[n,3]"),
        (2, ["n", 3], ""),
        ("n", [7, 3], ""),  # it may be called with that
    ],
)
def test_a_shape_that_an_output_is_wrongly_declared_to_have_is_told_and_not_used(
    size: int | str, declared: list[Any], told: str
) -> None:
    nodes = [node("Relu", "x", "y"), node("Shape", "y", "s")]
    outputs = [("y", FLOAT, declared), ("s", INT64, None)]
    model = load(build(nodes, [("x", FLOAT, [size, 3])], outputs))
    warnings = [note for note in model.notes if "declared" in note]
    assert [told in note for note in warnings] == [True] * bool(told)
    if size == 2:
        assert list(check(model)[1]) == [2, 3]


def test_nodes_in_any_order() -> None:
    """As tools leave them that append what they add; ONNX Runtime takes them too."""

    def branch(name: str) -> Any:
        nodes = [node("Abs", "late", f"{name}_abs"), node("Neg", f"{name}_abs", name)]
        return onnx.helper.make_graph(
            nodes, name, [], [onnx.helper.make_tensor_value_info(name, FLOAT, [2, 3])]
        )

    model = build(
        [
            node("If", "which", "y", then_branch=branch("a"), else_branch=branch("b")),
            node("Relu", "early", "late"),
            node("Exp", "x", "early"),
        ],
        [("x", FLOAT, [2, 3]), ("which", TensorProto.BOOL, [])],
        [("y", FLOAT, [2, 3])],
    )
    check(load(model))


def test_operators_of_onnx_runtime_whose_version_is_not_named() -> None:
    model = build(
        [node("Gelu", "x", "y", domain="com.microsoft")],
        [("x", FLOAT, [2, 3])],
        [("y", FLOAT, [2, 3])],
    )
    check(load(model))


def test_nodes_that_wait_for_each_other_are_refused() -> None:
    model = build(
        [node("Add", "x b", "a"), node("Relu", "a", "b")],
        [("x", FLOAT, [2, 3])],
        [("b", FLOAT, [2, 3])],
    )
    with pytest.raises(ModelError, match=r"^[^\n]*topologically sorted[^\n]*$"):
        load(model)
