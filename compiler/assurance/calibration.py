"""Inputs to verify and measure on: the user's own from files or Python, or random ones."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any, cast

import numpy as np
from blake3 import blake3

from hybridc.compiler import dims
from hybridc.compiler.errors import InputError, hint
from hybridc.compiler.filesystem import numpy_files
from hybridc.compiler.model import Array, OpaqueSpec, TensorSpec, as_array, random_feed

Feeds = list[dict[str, Array]]
# Arrays by input name that hold the samples, or such arrays one after another.
Data = Mapping[str, Array] | Iterable[Any]

# Samples that are taken of an iterable, which may have no end.
_AT_MOST = 10_000
# Elements of an output that tell how large it is.  Lower precisions are allowed a share of the
# largest, and a single element may be near zero by chance: of networks of three products in bf16
# 6 % of those with one output are further off than that, and none of those with four.
_FEWEST = 8
_OURS = "calibration"  # how what is wrong with data is told


def read(path: Path) -> dict[str, Array]:
    """Read the arrays of an .npz file, or of a folder of .npy files named for the inputs.

    Arrays of Python objects are refused, being pickles.  Raises InputError where there is nothing
    of the kind.
    """
    if not path.is_dir():
        return numpy_files.archive(path)
    found = {file.stem: numpy_files.array(file) for file in sorted(path.glob("*.npy"))}
    if not found:
        raise InputError(f"{path} contains no .npy file; expected one for each input, NAME.npy")
    return found


def feeds(data: Data, inputs: tuple[TensorSpec, ...]) -> Feeds:
    """Cut arrays by input name into feeds, one for each sample; or take feeds as they come.

    An array has the shape of its input (any, where that is open), or samples along one more leading
    axis, or along the input's own leading axis where that is 1.  Raises InputError where one does
    not fit.
    """
    if isinstance(data, Mapping):
        return _cut(cast("Mapping[str, Array]", data), inputs)
    found: Feeds = []
    for number, sample in enumerate(data):
        if number == _AT_MOST:
            raise InputError(f"calibration data has more than {_AT_MOST} samples: give fewer")
        if not isinstance(sample, Mapping):
            kind = type(sample).__name__
            raise InputError(
                f"calibration sample {number}: expected arrays by input name, got {kind}"
            )
        arrays = cast("Mapping[str, Any]", sample)
        found += _cut({name: as_array(array) for name, array in arrays.items()}, inputs)
    if not found:
        raise InputError("calibration data is empty")
    return found


def feeds_for(what: str, data: Data, inputs: tuple[TensorSpec, ...]) -> Feeds:
    """The same as `feeds`, with errors that say `what` the data are for: `validation`."""
    try:
        return feeds(data, inputs)
    except InputError as error:
        told = str(error)
        raise InputError(
            f"{what}{told.removeprefix(_OURS)}" if told.startswith(_OURS) else told
        ) from None


def owned(outputs: Sequence[Any]) -> list[Any]:
    """The same, with arrays that hold no more than their elements.

    What a runtime lends is a page or more for a few numbers, which for many samples adds up.
    """
    lent = [isinstance(each, np.ndarray) and each.base is not None for each in outputs]
    return [each.copy() if of else each for each, of in zip(outputs, lent, strict=True)]


def _content(value: Any) -> Iterator[bytes]:
    """All of a value as bytes: an array's type, shape and numbers; else what is in it, or text."""
    if isinstance(value, list):
        yield f"{len(value)};".encode()
        for part in value:
            yield from _content(part)
    elif isinstance(value, np.ndarray) and value.dtype.kind != "O":
        yield f"{value.dtype} {value.shape};".encode()
        yield np.ascontiguousarray(value).tobytes()
    else:
        yield repr(value.tolist() if isinstance(value, np.ndarray) else value).encode()


def digest(samples: Feeds) -> str:
    """BLAKE3 of names, types, shapes and contents, in their order: which data it was."""
    state = blake3()
    for sample in samples:
        for name, array in sorted(sample.items()):
            state.update(f"{name} ".encode())
            for part in _content(array):
                state.update(part)
    return state.hexdigest()


def _cut(arrays: Mapping[str, Array], inputs: tuple[TensorSpec, ...]) -> Feeds:
    _check_names(arrays, inputs)
    samples = {spec.name: _samples(arrays[spec.name], spec) for spec in inputs}
    counts = {name: len(array) for name, array in samples.items()}
    if len(set(counts.values())) > 1:
        raise InputError(f"calibration inputs differ in their number of samples: {counts}")
    if 0 in counts.values():
        raise InputError("calibration data is empty")
    for name, array in samples.items():
        if array.dtype.kind == "f" and np.isnan(array).any():
            holes = np.isnan(array.reshape(len(array), -1)).any(1)
            where = f"in {holes.sum()} of {len(array)} samples, first in sample {holes.argmax()}"
            raise InputError(f"calibration input {name!r} holds NaN {where}")
    count = next(iter(counts.values()), 1)
    return [{name: array[index] for name, array in samples.items()} for index in range(count)]


def random_feeds(inputs: tuple[TensorSpec, ...], seed: int, count: int = 1) -> Feeds:
    """Random feeds, the same for the same seed; open sizes are those to measure at.

    They are others than `activations.random_feeds` draws to find ranges.
    """
    return [random_feed(inputs, each) for each in seeds(seed, count)]


def enough(sizes: Iterable[int]) -> int:
    """How many samples give outputs of so many elements each some of them."""
    return -(-_FEWEST // min((size for size in sizes if size), default=_FEWEST))


def floats(outputs: Iterable[TensorSpec]) -> Iterator[int]:
    """How many elements each output of floats has; none is told where a size is open."""
    for spec in outputs:
        if not isinstance(spec, OpaqueSpec) and "float" in spec.dtype:
            yield 0 if dims.is_open(spec.shape) else prod(spec.fixed)


def seeds(seed: int, count: int) -> list[int]:
    """The seeds of so many random feeds, of which a larger number begins with the same."""
    others = np.random.SeedSequence((seed, 1)).generate_state(count - 1)
    return [seed, *map(int, others)]


def _check_names(arrays: Mapping[str, Array], inputs: tuple[TensorSpec, ...]) -> None:
    names = [spec.name for spec in inputs]
    missing = [spec.describe() for spec in inputs if spec.name not in arrays]
    extra = [f"{name!r} ({hint(name, names)})" for name in arrays if name not in names]
    said = [f"missing inputs: {', '.join(missing)}"] if missing else []
    said += [f"unknown inputs: {', '.join(extra)}"] if extra else []
    if said:
        raise InputError(f"calibration data: {'; '.join(said)}")


def _one(value: Any) -> Array:
    """An array of one element: the value."""
    made = np.empty(1, object)
    made[0] = value
    return made


def _samples(array: Array, spec: TensorSpec) -> Array:
    """The array with the samples along one leading axis; what is opaque is one sample."""
    if isinstance(spec, OpaqueSpec):
        return _one(array)
    if str(array.dtype) == spec.dtype:
        if dims.fits(spec.shape, array.shape):
            return array[np.newaxis]
        if dims.fits(spec.shape, array.shape[1:]):
            return array
        if dims.fits(spec.shape, (1, *array.shape[1:])):
            return array[:, np.newaxis]
    given = TensorSpec(spec.name, array.shape, str(array.dtype)).describe()
    raise InputError(
        f"calibration input wanted: {spec.describe()}, or samples of it along one more leading "
        f"axis; given: {given}"
    )
