"""Regions in the file of an artifact: kept, stored once, checked."""

import dataclasses
import io
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from example_artifact import JSON_VALUES, WEIGHTS, make
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridc.compiler.artifacts import archive
from hybridc.compiler.artifacts.artifact import Artifact
from hybridc.compiler.artifacts.weights import encode
from hybridc.compiler.errors import ArtifactError
from hybridc.compiler.model import OpaqueSpec, Region, TensorSpec

BULK = np.arange(40, dtype=np.float64).reshape(5, 8)
FEW = settings(max_examples=60, deadline=None)


def regions() -> tuple[Region, ...]:
    """Two that share a weight with each other, and one with compiled code."""
    words = OpaqueSpec("s", type="tensor(string)", sizes=(None, 2))
    parts = OpaqueSpec("t", type="seq(tensor(float))")
    x, y = TensorSpec("x", (2, 3), "float32"), TensorSpec("y", (), "int64")
    first = Region(
        "region0", b"one model", {"a": BULK, "b": WEIGHTS["w1"]}, (x, words), (parts,), {"Loop": 2}
    )
    second = Region("region1", b"another", {"c": BULK.copy()}, (parts,), (y,), {"SequenceAt": 1})
    return first, second


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("saved") / "m.hyb"
    make(regions=regions()).save(path)
    return path.read_bytes()


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    return tmp_path / "m.hyb"


def test_what_was_saved_is_loaded(content: bytes, scratch: Path) -> None:
    scratch.write_bytes(content)
    loaded = Artifact.load(scratch)
    assert list(loaded.weights) == list(WEIGHTS)
    for one, other in zip(loaded.regions, regions(), strict=True):
        plain = dataclasses.replace(one, weights={})
        assert vars(plain) == vars(dataclasses.replace(other, weights={}))
        assert list(one.weights) == list(other.weights)
        for name, array in other.weights.items():
            np.testing.assert_array_equal(one.weights[name], array)


def test_equal_weights_are_stored_once(content: bytes, scratch: Path) -> None:
    scratch.write_bytes(content)
    loaded = Artifact.load(scratch)
    assert [list(entry["weights"].values()) for entry in loaded.manifest()["regions"]] == [
        ["region.0", "w1"],
        ["region.0"],
    ]
    assert loaded.regions[0].weights["a"] is loaded.regions[1].weights["c"]
    assert list(loaded.tensors()) == [*WEIGHTS, "region.0"]


def test_equal_artifacts_give_equal_bytes(content: bytes, scratch: Path) -> None:
    make(regions=regions()).save(scratch)
    assert scratch.read_bytes() == content
    Artifact.load(scratch).save(scratch)
    assert scratch.read_bytes() == content


def test_any_zip_tool_reads_the_regions(content: bytes) -> None:
    with zipfile.ZipFile(io.BytesIO(content)) as opened:
        assert opened.testzip() is None
        assert opened.namelist() == [*archive.MEMBERS, "region-0.onnx", "region-1.onnx"]
        assert opened.read("region-1.onnx") == b"another"


def test_without_regions_nothing_of_the_file_changes(scratch: Path) -> None:
    """Older versions go on reading it."""
    make().save(scratch)
    assert b"hybridc artifact 1 " in scratch.read_bytes()[-90:]
    manifest = Artifact.load(scratch).manifest()
    assert manifest["format"] == 1
    assert "regions" not in manifest


@given(data=st.data())
@FEW
def test_every_changed_byte_is_found(
    content: bytes, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    start = content.index(b"region-0.onnx")
    # Half of the changes are in what regions add.
    ranges = st.integers(0, len(content) - 1) | st.integers(start - 40, start + 400)
    place = data.draw(ranges.filter(lambda at: at < len(content)))
    changed = bytearray(content)
    changed[place] ^= data.draw(st.integers(1, 255))
    path = tmp_path_factory.mktemp("changed") / "m.hyb"
    path.write_bytes(changed)
    with pytest.raises(ArtifactError):
        Artifact.load(path)


@given(size=st.integers(0, 5000))
@FEW
def test_every_truncation_is_found(
    content: bytes, tmp_path_factory: pytest.TempPathFactory, size: int
) -> None:
    path = tmp_path_factory.mktemp("cut") / "m.hyb"
    path.write_bytes(content[: min(size, len(content) - 1)])
    with pytest.raises(ArtifactError):
        Artifact.load(path)


def sealed(manifest: Any, models: tuple[bytes, ...]) -> bytes:
    """A whole file, whatever its manifest says."""
    artifact = make(regions=regions())
    members: dict[str, archive.Chunks] = {
        "schedule.lock": (b"{}",),
        "report.json": (b"{}",),
        "lib.so": (artifact.library,),
        "weights.safetensors": encode(artifact.tensors()),
        **{archive.region_member(i): (model,) for i, model in enumerate(models)},
    }
    stream = io.BytesIO()
    archive.write(stream, manifest, members)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("changes", "models", "message"),
    [
        ({}, (b"one",), "lists 2 regions, the file contains others"),
        ({"format": 1}, (b"one", b"two"), "the file contains others"),
        ({"regions": 7}, (b"one", b"two"), "'regions' must be a list"),
        ({"regions": [{}, {}]}, (b"one", b"two"), "describes a region wrongly"),
    ],
)
def test_what_does_not_fit_is_refused(
    scratch: Path, changes: Any, models: tuple[bytes, ...], message: str
) -> None:
    scratch.write_bytes(sealed({**make(regions=regions()).manifest(), **changes}, models))
    with pytest.raises(ArtifactError, match=message):
        Artifact.load(scratch)


@given(
    key=st.sampled_from(["name", "inputs", "outputs", "operators", "weights"]), value=JSON_VALUES
)
@FEW
def test_any_entry_of_the_manifest_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, key: str, value: Any
) -> None:
    manifest = make(regions=regions()).manifest()
    first, second = manifest["regions"]
    path = tmp_path_factory.mktemp("odd") / "m.hyb"
    path.write_bytes(sealed({**manifest, "regions": [{**first, key: value}, second]}, (b"1", b"2")))
    with suppress(ArtifactError):
        Artifact.load(path)
