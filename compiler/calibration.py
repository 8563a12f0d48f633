"""Inputs to verify and measure on: the user's own from an .npz file, or random ones."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from hybridc.compiler.errors import InputError, hint
from hybridc.compiler.model import Array, TensorSpec, random_feed

Feeds = list[dict[str, Array]]


def read(path: Path) -> dict[str, Array]:
    """Read the arrays of an .npz file; arrays of Python objects are refused, being pickles.

    Raises InputError where the file is missing or no such archive.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            return dict(archive)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # zipfile and numpy raise many kinds for a damaged archive
        raise InputError(f"{path} is no archive of plain arrays (.npz): {error}") from error


def feeds(arrays: Mapping[str, Array], inputs: tuple[TensorSpec, ...]) -> Feeds:
    """Cut arrays by input name into feeds, one for each sample.

    An array has the shape of its input, or samples along one more leading axis, or along the
    input's own leading axis where that is 1.  Raises InputError where one does not fit.
    """
    _check_names(arrays, inputs)
    samples = {spec.name: _samples(arrays[spec.name], spec) for spec in inputs}
    counts = {name: len(array) for name, array in samples.items()}
    if len(set(counts.values())) > 1 or 0 in counts.values():
        raise InputError(f"calibration inputs differ in their number of samples: {counts}")
    count = next(iter(counts.values()), 1)
    return [{name: array[index] for name, array in samples.items()} for index in range(count)]


def random_feeds(inputs: tuple[TensorSpec, ...], seed: int) -> Feeds:
    """One random feed, the same for the same seed."""
    return [random_feed(inputs, seed)]


def _check_names(arrays: Mapping[str, Array], inputs: tuple[TensorSpec, ...]) -> None:
    names = [spec.name for spec in inputs]
    missing = [spec.describe() for spec in inputs if spec.name not in arrays]
    extra = [f"{name!r} ({hint(name, names)})" for name in arrays if name not in names]
    said = [f"missing inputs: {', '.join(missing)}"] if missing else []
    said += [f"unknown inputs: {', '.join(extra)}"] if extra else []
    if said:
        raise InputError(f"calibration data: {'; '.join(said)}")


def _samples(array: Array, spec: TensorSpec) -> Array:
    """The array with the samples along one leading axis."""
    if str(array.dtype) == spec.dtype:
        if array.shape == spec.shape:
            return array[np.newaxis]
        if array.shape[1:] == spec.shape:
            return array
        if spec.shape[:1] == (1,) and array.shape[1:] == spec.shape[1:]:
            return array[:, np.newaxis]
    given = TensorSpec(spec.name, array.shape, str(array.dtype)).describe()
    raise InputError(
        f"calibration input wanted: {spec.describe()}, or samples of it along one more leading "
        f"axis; given: {given}"
    )
