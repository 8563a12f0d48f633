"""Data of the user's: files, folders and iterables, each read or refused in one line."""

import itertools
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hybridc.compiler.assurance import calibration
from hybridc.compiler.errors import InputError
from hybridc.compiler.model import Array, TensorSpec

INPUTS = (TensorSpec("x", (1, 3), "float32"), TensorSpec("n", (), "int64"))


def arrays(count: int) -> dict[str, Array]:
    return {"x": np.ones((count, 3), np.float32), "n": np.arange(count)}


def test_what_a_runtime_lends_is_copied() -> None:
    whole = np.arange(1000.0)
    opaque = ["text"]
    part, own, same = calibration.owned([whole[3:5], whole, opaque])
    assert part.base is None
    np.testing.assert_array_equal(part, [3.0, 4.0])
    assert own is whole
    assert same is opaque


def test_an_archive_and_a_folder_give_the_same(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=arrays(4)["x"], n=arrays(4)["n"])
    for name, array in arrays(4).items():
        np.save(tmp_path / f"{name}.npy", array)
    found = [
        calibration.feeds(calibration.read(path), INPUTS)
        for path in (tmp_path / "data.npz", tmp_path)
    ]
    assert len(found[0]) == 4
    assert found[0][3]["x"].shape == (1, 3)
    assert calibration.digest(found[0]) == calibration.digest(found[1])


def test_an_iterable_gives_feeds_or_pieces() -> None:
    pieces = (arrays(count) for count in (1, 3))
    found = calibration.feeds(pieces, INPUTS)
    assert [int(feed["n"]) for feed in found] == [0, 0, 1, 2]
    assert calibration.digest(found) != calibration.digest(found[::-1])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"x": np.ones((0, 3), np.float32), "n": np.arange(0)}, "is empty"),
        ([], "is empty"),
        ([3], "sample 0: expected arrays by input name, got int"),
        ([arrays(1), {"x": arrays(1)["x"]}], "missing inputs: n int64"),
        ({**arrays(2), "n": np.arange(3)}, "differ in their number of samples"),
        ({**arrays(1), "x": np.full((1, 3), np.nan, np.float32)}, "'x' holds NaN"),
        (itertools.repeat(arrays(1)), "has more than 10000 samples"),
    ],
)
def test_what_fits_no_model_is_refused(data: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        calibration.feeds(data, INPUTS)


SHAPED = "{'descr': '<f8', 'fortran_order': False, 'shape': (%s), }"


def npy(header: str) -> bytes:
    """A file of such a header, and nothing behind it."""
    told = f"{header}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(told).to_bytes(2, "little") + told


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("data.npz", b"PK\x03\x04 torn", "not an archive of plain arrays"),
        ("data.npy", b"\x93NUMPY torn", "for .npy files give the folder that holds one for each"),
        ("folder/x.npy", b"\x93NUMPY torn", "not a plain array"),
        ("folder/x.npy", npy("{'descr': '<f8', ((("), "not a plain array"),
        (
            "folder/x.npy",
            npy(SHAPED % "9999999999999,"),
            "not a plain array .*: Unable to allocate",
        ),
        ("folder/x.npy", npy(SHAPED % "-2,"), "not a plain array"),
        ("folder/readme.txt", b"", "contains no .npy file"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        calibration.read(path if path.parent == tmp_path else path.parent)


def test_a_pickle_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([object()]), allow_pickle=True)
    np.savez(tmp_path / "x.npz", x=np.array([object()]))
    for path in (tmp_path, tmp_path / "x.npz"):
        with pytest.raises(InputError, match=r"damaged, or holds Python objects$"):
            calibration.read(path)


def test_an_archive_of_something_else_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("x.npy", b"no array")
    with pytest.raises(
        InputError, match=r"not an archive of plain arrays \(.npz\): 'x' is not an array"
    ):
        calibration.read(tmp_path / "x.npz")
