"""A file that is not, to the byte, what was written is refused with one clear line."""

import io
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest
from example_artifact import JSON_VALUES, make
from hypothesis import given
from hypothesis import strategies as st

from hybridc.compiler.artifacts import archive
from hybridc.compiler.artifacts.artifact import Artifact
from hybridc.compiler.artifacts.weights import encode
from hybridc.compiler.errors import ArtifactError


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file for properties to write: hypothesis runs many cases in one test."""
    return tmp_path_factory.mktemp("scratch") / "m.hyb"


def refused(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    with pytest.raises(ArtifactError) as error:
        Artifact.load(path)
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith(str(path))
    return message


def test_every_flipped_byte_is_refused(artifact_bytes: bytes, scratch: Path) -> None:
    for position in range(len(artifact_bytes)):
        altered = bytearray(artifact_bytes)
        altered[position] ^= 1 << position % 8
        refused(scratch, bytes(altered))


@given(data=st.data())
def test_any_damage_is_refused(artifact_bytes: bytes, scratch: Path, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(artifact_bytes)))
    end = data.draw(st.integers(start, min(start + 300, len(artifact_bytes))))
    altered = artifact_bytes[:start] + data.draw(st.binary(max_size=300)) + artifact_bytes[end:]
    if altered != artifact_bytes:
        refused(scratch, altered)


@given(size=st.integers(0, 10**6))
def test_every_truncation_is_refused(artifact_bytes: bytes, scratch: Path, size: int) -> None:
    refused(scratch, artifact_bytes[: size % len(artifact_bytes)])


@given(
    noise=st.binary(max_size=500), seal=st.sampled_from([b"", b"hybridc artifact 1 " + b"0" * 64])
)
def test_noise_is_refused(scratch: Path, noise: bytes, seal: bytes) -> None:
    refused(scratch, noise + seal)


@given(data=st.data())
def test_headers_with_noise_are_refused(
    artifact_bytes: bytes, scratch: Path, data: st.DataObject
) -> None:
    """Noise where the walk through the members reads, so that it is reached before the seal is."""
    name = data.draw(st.sampled_from(archive.MEMBERS)).encode()
    header = artifact_bytes.index(name) - 30
    start = header + data.draw(st.integers(0, 30 + len(name) + 30))
    noise = data.draw(st.binary(min_size=1, max_size=30))
    altered = artifact_bytes[:start] + noise + artifact_bytes[start + len(noise) :]
    if altered != artifact_bytes:
        refused(scratch, altered)


def sealed(manifest: dict[str, Any], weights: bytes = b"", report: bytes = b"{}") -> bytes:
    """An archive with digests and seal that fit, whatever it holds."""
    stream = io.BytesIO()
    members = {
        "schedule.lock": (b"{}",),
        "report.json": (report,),
        "lib.so": (b"",),
        "weights.safetensors": (weights or b"".join(encode({})),),
    }
    archive.write(stream, manifest, members)
    return stream.getvalue()


@given(key=st.sampled_from(sorted(make().manifest())), value=JSON_VALUES)
def test_a_wrong_manifest_is_refused(scratch: Path, key: str, value: Any) -> None:
    data = sealed({**make().manifest(), key: value})
    scratch.write_bytes(data)
    try:
        loaded = Artifact.load(scratch)
    except ArtifactError:
        return
    assert archive.dump_json(loaded.manifest()) == archive.dump_json(
        {**make().manifest(), key: value}
    )


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"hello", "not a hybridc artifact"),
        (b"\x08\x0d" + b"onnx" * 99, "not a hybridc artifact"),
        (b"PK\x05\x06" + bytes(18), "not a hybridc artifact"),
        (b"x" * 99 + b"hybridc artifact 3 " + b"0" * 64, "container version"),
        (sealed({**make().manifest(), "format": 99}), "format 99"),
        (sealed(make().manifest(), report=b"[]"), "report.json is not a JSON object"),
        (sealed(make().manifest(), report=b"[" * 100_000), "report.json is not valid JSON"),
    ],
)
def test_foreign_and_newer_files_say_so(scratch: Path, data: bytes, message: str) -> None:
    assert message in refused(scratch, data)


def test_truncated_is_told_from_foreign(artifact_bytes: bytes, scratch: Path) -> None:
    assert "truncated" in refused(scratch, artifact_bytes[:-1])
    assert "truncated" in refused(scratch, artifact_bytes[: len(artifact_bytes) // 2])


def test_a_repacked_artifact_is_refused(artifact_bytes: bytes, scratch: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(artifact_bytes)) as opened:
        repacked = io.BytesIO()
        with zipfile.ZipFile(repacked, "w", zipfile.ZIP_DEFLATED) as target:
            target.comment = opened.comment
            for name in opened.namelist():
                target.writestr(name, opened.read(name))
    assert "repacked" in refused(scratch, repacked.getvalue())


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"none.hyb: no such file"):
        Artifact.load(tmp_path / "none.hyb")
    with pytest.raises(ArtifactError, match="not a regular file"):
        Artifact.load(tmp_path)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ArtifactError, match="not a regular file"):
        Artifact.load(tmp_path / "fifo")
