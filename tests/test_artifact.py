"""The artifact file: what goes in comes out, aligned, mapped and byte for byte the same."""

import dataclasses
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import safetensors
from example_artifact import WEIGHTS, make

from hybridc.compiler.artifacts import archive
from hybridc.compiler.artifacts.artifact import Artifact, lock_of
from hybridc.compiler.hardware import host
from hybridc.compiler.kernel_record import KernelRecord


def test_round_trip(tmp_path: Path) -> None:
    make().save(tmp_path / "m.hyb")
    loaded = Artifact.load(tmp_path / "m.hyb")
    for field in dataclasses.fields(Artifact):
        if field.name != "weights":
            assert getattr(loaded, field.name) == getattr(make(), field.name)
    assert list(loaded.weights) == list(WEIGHTS)
    for name, array in WEIGHTS.items():
        assert loaded.weights[name].dtype == array.dtype
        assert loaded.weights[name].shape == array.shape
        np.testing.assert_array_equal(loaded.weights[name], array)


def test_weights_are_mapped_and_aligned(tmp_path: Path) -> None:
    make().save(tmp_path / "m.hyb")
    for name, array in Artifact.load(tmp_path / "m.hyb").weights.items():
        assert not array.flags.owndata, name
        assert array.flags.writeable, "DLPack refuses what is read-only"
        if array.size:
            assert array.ctypes.data % 64 == 0, name


def test_writing_into_mapped_weights_leaves_the_file_alone(tmp_path: Path) -> None:
    make().save(tmp_path / "m.hyb")
    before = (tmp_path / "m.hyb").read_bytes()
    Artifact.load(tmp_path / "m.hyb").weights["w1"][...] = 0
    assert (tmp_path / "m.hyb").read_bytes() == before


def test_any_zip_tool_reads_it(artifact_bytes: bytes) -> None:
    with zipfile.ZipFile(io.BytesIO(artifact_bytes)) as opened:
        assert opened.testzip() is None
        assert tuple(opened.namelist()) == archive.MEMBERS
        assert {info.compress_type for info in opened.infolist()} == {zipfile.ZIP_STORED}
        assert json.loads(opened.read("manifest.json"))["pipeline"] == make().pipeline
        assert json.loads(opened.read("schedule.lock")) == make().lock
        assert opened.read("lib.so") == make().library


def test_the_safetensors_library_reads_the_weights(artifact_bytes: bytes) -> None:
    with zipfile.ZipFile(io.BytesIO(artifact_bytes)) as opened:
        member = opened.read("weights.safetensors")
    found = dict(safetensors.deserialize(member))
    kept = {name: entry for name, entry in found.items() if not name.startswith("__pad.")}
    assert kept.keys() == WEIGHTS.keys()
    for name, array in WEIGHTS.items():
        assert bytes(kept[name]["data"]) == array.tobytes()
        assert tuple(kept[name]["shape"]) == array.shape


def test_equal_artifacts_are_equal_bytes(tmp_path: Path, artifact_bytes: bytes) -> None:
    (tmp_path / "elsewhere").mkdir()
    path = tmp_path / "elsewhere" / "other.hyb"
    make(report={"passes": ["fuse"], "kernels": 1}).save(path)
    assert path.read_bytes() == artifact_bytes
    Artifact.load(path).save(path)
    assert path.read_bytes() == artifact_bytes
    assert str(tmp_path).encode() not in artifact_bytes


def test_lock_lists_rules_and_points() -> None:
    records = [
        KernelRecord("b", "dense", {"rows": 8}, {"conv": "no window"}, workload="c" * 64),
        KernelRecord("a", "softmax", {}, {}),
    ]
    wanted = {
        "a": {"rule": "softmax", "point": {}, "workload": ""},
        "b": {"rule": "dense", "point": {"rows": 8}, "workload": "c" * 64},
    }
    assert lock_of(records) == wanted
    assert archive.dump_json(lock_of(records)) == archive.dump_json(lock_of(records[::-1]))


def test_lacking_features_are_named() -> None:
    assert make().lacking(frozenset({"avx2", "fma", "avx512f"})) == ()
    assert make().lacking(frozenset({"sse4.2", "fma"})) == ("avx2",)
    assert make(target={"features": ["no-such"]}).lacking() == ("no-such",)
    assert make(target={"features": sorted(host.cpu_features())}).lacking() == ()
