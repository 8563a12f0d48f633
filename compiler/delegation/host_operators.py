"""Operators that Python computes in a region, since ONNX Runtime cannot, or on some systems only.

An artifact carries them as it carries all of a region: as nodes of an ONNX model, by name.  A
function takes the node's attributes and its inputs, and returns its output.
"""

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybridc.compiler.errors import ArtifactError, InputError

Array = NDArray[Any]
Attributes = Mapping[str, Any]
Compute = Callable[[Attributes, Sequence[Array]], Array]

# Languages in which one letter has another counterpart than in Unicode's own tables.
_OWN_CASES = ("tr", "az", "lt")


def host_names(operators: Iterable[str]) -> list[str]:
    """Which of these operators Python computes."""
    return [name for name in operators if name in HOST]


def check(operator: str, attributes: Attributes) -> None:
    """Raise ArtifactError for what a node asks for and is not computed."""
    if operator == "StringNormalizer":
        _require_common_case(attributes)
    elif operator == "ImageDecoder":
        _pillow()


def _normalize_strings(attributes: Attributes, inputs: Sequence[Array]) -> Array:
    """Leave out stop words, and change the case of the others.

    Without ICU and without the system's locales, by Unicode's tables as Python has them.
    """
    _require_common_case(attributes)
    words = [str(word) for word in inputs[0].ravel()]
    stops = {str(word) for word in attributes.get("stopwords", ())}
    change = str(attributes.get("case_change_action", "NONE"))
    if attributes.get("is_case_sensitive", 0):
        kept = [word for word in words if word not in stops]
    else:
        folded = {word.casefold() for word in stops}
        kept = [word for word in words if word.casefold() not in folded]
    changed = list(map(_CASES[change], kept)) or [""]
    return np.array(changed, object).reshape((1, -1) if inputs[0].ndim > 1 else (-1,))


def _require_common_case(attributes: Attributes) -> None:
    locale = str(attributes.get("locale", ""))
    change = str(attributes.get("case_change_action", "NONE"))
    if change not in _CASES:
        raise ArtifactError(f"case_change_action={change!r} is not one of {', '.join(_CASES)}")
    if change != "NONE" and locale.lower().startswith(_OWN_CASES):
        raise ArtifactError(f"upper and lower case of the locale {locale!r} are not supported")


_CASES: Mapping[str, Callable[[str], str]] = MappingProxyType(
    {"NONE": str, "LOWER": str.lower, "UPPER": str.upper}
)


def _decode_image(attributes: Attributes, inputs: Sequence[Array]) -> Array:
    """An image file's pixels `[height, width, channels]`.  Raises InputError for another file."""
    image = _pillow()
    wanted = str(attributes.get("pixel_format", "RGB"))
    try:
        with image.open(io.BytesIO(inputs[0].astype(np.uint8).tobytes())) as picture:
            mode = "L" if wanted == "Grayscale" else "RGB"
            pixels = np.asarray(picture.convert(mode))
    except Exception as error:  # of many kinds, among them that of an image too large to be one
        raise InputError(f"not an image that can be decoded: {error}") from None
    if mode == "L":
        return pixels[:, :, np.newaxis]
    return np.ascontiguousarray(pixels[:, :, ::-1]) if wanted == "BGR" else pixels


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError:
        raise ArtifactError(
            "this model decodes images, which takes Pillow: pip install 'hybridc[images]'"
        ) from None
    return Image


HOST: Mapping[str, Compute] = MappingProxyType(
    {"ImageDecoder": _decode_image, "StringNormalizer": _normalize_strings}
)
