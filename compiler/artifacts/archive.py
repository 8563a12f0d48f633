"""The container of an artifact: a ZIP file of stored members, every byte of it hashed once.

There are five, and one more for each region that is handed to ONNX Runtime.

`manifest.json` lists the BLAKE3 digest of each other member; the ZIP comment, which is the end of
the file, holds the digest of all that remains: the manifest, the headers and the ZIP directory.
Any ZIP tool reads the file; `read` itself walks the members in their fixed order, so there is
no name, count or offset that a file could choose.
"""

import json
import struct
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from blake3 import blake3

from hybridc.compiler.errors import ArtifactError

ALIGNMENT = 64  # bytes: the widest vector and the cache line; TVM refuses less
MANIFEST = "manifest.json"
MEMBERS = (MANIFEST, "schedule.lock", "report.json", "lib.so", "weights.safetensors")

_FAMILY = b"hybridc artifact "
# The version of the container, with regions and without; the digest follows.
_SEALS = {False: _FAMILY + b"1 ", True: _FAMILY + b"2 "}
_SEAL_SIZE = len(_SEALS[False])
_DIGEST = 64  # hexadecimal digits of BLAKE3
_JSON_LIMIT = 64 * 2**20
_LOCAL = struct.Struct("<4s5H3I2H")
_LOCAL_MAGIC = b"PK\x03\x04"
_END_SIZE = 22  # the ZIP end record, comment not counted
_ELSEWHERE = 0xFFFFFFFF  # in a size field: the size stands in the extra field of ZIP64
_ZIP64 = struct.Struct("<2H2Q")  # written for every member, so that small and large are one case
_ZIP64_ID = 1
_PADDING = struct.Struct("<2H")
_PADDING_ID = 0xD935  # extra field that Android's zipalign made the usual one for padding
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that ZIP can tell

_REGION_LIMIT = 2**30  # bytes of a region's model, which holds small constants only

Chunks = Sequence[bytes | memoryview]  # views are of plain bytes


def write(stream: BinaryIO, manifest: Mapping[str, Any], members: Mapping[str, Chunks]) -> None:
    """Write the archive to an empty, seekable, readable stream; equal content, equal bytes.

    `members` holds every member but the manifest, each as chunks to be joined, those of regions by
    `region_member` in order.  Raises OSError
    where the stream does, and ArtifactError if the manifest is no JSON.
    """
    digests = {name: _digest(chunks) for name, chunks in members.items()}
    contents = {**members, MANIFEST: (dump_json({**manifest, "blake3": digests}),)}
    regions = len(members) + 1 - len(MEMBERS)
    spans: list[tuple[int, int]] = []
    with zipfile.ZipFile(stream, "w") as archive:
        archive.comment = _SEALS[regions > 0] + bytes(_DIGEST)
        for name in (*MEMBERS, *map(region_member, range(regions))):
            spans.append(_add(archive, stream, name, contents[name]))
    seal = blake3()
    for start, end in _gaps(spans, stream.seek(0, 2) - _DIGEST):
        stream.seek(start)
        seal.update(stream.read(end - start))
    stream.seek(-_DIGEST, 2)
    stream.write(seal.hexdigest().encode())


def read(view: memoryview) -> tuple[dict[str, Any], dict[str, memoryview]]:
    """Check every byte of an archive; return its manifest and its members, which are not copied.

    Raises ArtifactError if the bytes are no archive of ours, or are not as they were written.
    """
    end = len(view) - _DIGEST
    found = _walk(view, end, _check_ends(view, end))
    spans = list(found.values())
    seal = blake3()
    for start, stop in _gaps(spans, end):
        seal.update(view[start:stop])
    if seal.hexdigest().encode() != bytes(view[end:]):
        raise ArtifactError("the file was altered or damaged: its seal does not match")
    members = {name: view[start:stop] for name, (start, stop) in found.items()}
    manifest = load_json(members.pop(MANIFEST), MANIFEST)
    _check_digests(manifest.get("blake3"), members)
    return manifest, members


def seal_of(path: Path) -> str:
    """The digest with which an archive ends: it stands for every byte before it.

    Nothing is checked, as `read` does.  Raises OSError if the file is too short or not there.
    """
    with path.open("rb") as stream:
        stream.seek(-_DIGEST, 2)
        return stream.read().decode("ascii", "replace")


def region_member(index: int) -> str:
    """The name of the member that holds a region's model."""
    return f"region-{index}.onnx"


def dump_json(data: Mapping[str, Any]) -> bytes:
    """JSON in one form only: keys sorted, ASCII, finite numbers.

    Raises ArtifactError if the data has something that JSON lacks.
    """
    try:
        text = json.dumps(data, sort_keys=True, indent=1, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ArtifactError(f"data for an artifact must be JSON: {error}") from error
    return text.encode() + b"\n"


def load_json(content: memoryview, name: str) -> dict[str, Any]:
    """Read a member that holds one JSON object; raise ArtifactError if it does not."""
    if len(content) > _JSON_LIMIT:
        raise ArtifactError(f"{name} has {len(content)} bytes, more than {_JSON_LIMIT}")
    try:
        data = json.loads(bytes(content))
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{name} is not valid JSON: {error}") from None
    if not isinstance(data, dict):
        raise ArtifactError(f"{name} is not a JSON object")
    return data


def _add(archive: zipfile.ZipFile, stream: BinaryIO, name: str, chunks: Chunks) -> tuple[int, int]:
    """Write one member with its content aligned; return where the content begins and ends."""
    info = zipfile.ZipInfo(name, _EPOCH)
    info.create_system = 3  # Unix, wherever it is written: equal bytes
    info.file_size = sum(map(len, chunks))
    header = _LOCAL.size + len(name) + _PADDING.size + _ZIP64.size
    padding = -(stream.tell() + header) % ALIGNMENT
    info.extra = _PADDING.pack(_PADDING_ID, padding) + bytes(padding)
    with archive.open(info, "w", force_zip64=True) as member:
        start = stream.tell()
        for chunk in chunks:
            member.write(chunk)
    return start, start + info.file_size


def _gaps(spans: Sequence[tuple[int, int]], end: int) -> Iterable[tuple[int, int]]:
    """The parts of the file that no digest of the manifest covers, the manifest among them."""
    position = 0
    for start, stop in spans[1:]:
        yield position, start
        position = stop
    yield position, end


def _check_ends(view: memoryview, end: int) -> bool:
    """Tell our own file from a foreign one, a truncated one and one of another version.

    Returns whether it has regions.
    """
    comment = end - _SEAL_SIZE
    seal = bytes(view[max(comment, 0) : max(end, 0)])
    if comment < _END_SIZE or not seal.startswith(_FAMILY):
        begin = bytes(view[: _LOCAL.size + len(MANIFEST)])
        if begin.startswith(_LOCAL_MAGIC) and begin.endswith(MANIFEST.encode()):
            raise ArtifactError("the file is truncated or damaged: its end is missing")
        raise ArtifactError("the file is not a hybridc artifact")
    if seal not in _SEALS.values():
        version = seal[len(_FAMILY) :].decode("ascii", "replace").strip()
        raise ArtifactError(f"the artifact has container version {version!r}; known: '1', '2'")
    return seal == _SEALS[True]


def _walk(view: memoryview, end: int, regions: bool) -> dict[str, tuple[int, int]]:
    """Where the content of each member begins and ends; names follow from the places alone."""
    spans: dict[str, tuple[int, int]] = {}
    position = 0
    for name in MEMBERS:
        spans[name] = _span(view, position, end, name)
        position = spans[name][1]
    while regions and bytes(view[position : position + len(_LOCAL_MAGIC)]) == _LOCAL_MAGIC:
        name = region_member(len(spans) - len(MEMBERS))
        spans[name] = start, position = _span(view, position, end, name)
        if position - start > _REGION_LIMIT:
            raise ArtifactError(f"{name} has {position - start} bytes, more than {_REGION_LIMIT}")
    return spans


def _span(view: memoryview, position: int, end: int, name: str) -> tuple[int, int]:
    """Where the content of the member at `position` begins and ends."""
    if position + _LOCAL.size > end:
        raise ArtifactError(f"the file is truncated or damaged: {name} is missing")
    start, size = _header(view, position, name)
    if start + size > end:
        raise ArtifactError(f"the file is truncated or damaged: {name} extends past its end")
    return start, start + size


def _header(view: memoryview, position: int, name: str) -> tuple[int, int]:
    """Where the content of the member at `position` begins, and its size in bytes."""
    magic, _, flags, method, _, _, _, packed, size, name_size, extra_size = _LOCAL.unpack_from(
        view, position
    )
    names = position + _LOCAL.size
    extra = names + name_size
    if magic != _LOCAL_MAGIC or bytes(view[names:extra]) != name.encode():
        raise ArtifactError(f"the file is damaged: {name} is not where it should be")
    if flags or method != zipfile.ZIP_STORED or {packed, size} != {_ELSEWHERE}:
        raise ArtifactError(f"the file is damaged or repacked: {name} is compressed or encrypted")
    start = extra + extra_size
    if start % ALIGNMENT:
        raise ArtifactError(f"the file is damaged or repacked: {name} is not aligned")
    return start, _size(view[extra:start], name)


def _size(extra: memoryview, name: str) -> int:
    """The size of a member, which stands at the end of its extra field."""
    if len(extra) >= _ZIP64.size:
        kind, length, size, packed = _ZIP64.unpack(extra[-_ZIP64.size :])
        if (kind, length) == (_ZIP64_ID, 16) and size == packed:
            return int(size)
    raise ArtifactError(f"the file is damaged: {name} does not record its size")


def _check_digests(digests: object, members: Mapping[str, memoryview]) -> None:
    if not isinstance(digests, dict) or digests.keys() != members.keys():
        raise ArtifactError(f"{MANIFEST} must list the BLAKE3 digest of every other member")
    for name, content in members.items():
        if digests[name] != _digest((content,)):
            raise ArtifactError(
                f"the file was altered or damaged: {name} does not match its digest"
            )


def _digest(chunks: Chunks) -> str:
    hasher = blake3()
    for chunk in chunks:
        hasher.update(chunk)
    return str(hasher.hexdigest())
