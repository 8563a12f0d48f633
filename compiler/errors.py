"""Errors a user can act on: each says what was given, what is possible and the nearest name.

The command line prints the message as one line and exits with `exit_code`.
"""

import difflib
from collections.abc import Iterable
from typing import ClassVar

# Names that are listed whole; of more, so many that are most like the one that was given.
_LISTED = 40
_NEAREST = 8


class HybridcError(Exception):
    """Base of every error that hybridc raises on purpose."""

    exit_code: ClassVar[int] = 2


class InputError(HybridcError):
    """What the user gave (a file, an option, an array) is not usable."""


class ModelError(InputError):
    """The model cannot be read, or contains something that is not supported."""


class UnsupportedError(ModelError):
    """A form of an operator that is not converted; the text completes "is not supported with"."""


class ArtifactError(InputError):
    """The file is damaged or not an artifact, or the artifact is not for this host."""


class PluginError(InputError):
    """A plug-in is unknown, malformed or was given a wrong option."""


class LogError(InputError):
    """The tuning log cannot be opened, read or written; it is left unchanged."""


class PassError(HybridcError):
    """A pass failed, or broke its contract."""

    exit_code = 1


class WrongAnswerError(HybridcError):
    """The compiled model's answer differs from its reference's."""

    exit_code = 1


class ContractError(HybridcError):
    """The contract cannot be kept."""

    exit_code = 3


class MissingRecordError(HybridcError):
    """A frozen build needs a record that the tuning log lacks, or a lock does not fit."""

    exit_code = 4


def hint(name: str, known: Iterable[str]) -> str:
    """Say which known name is nearest, or list the known ones: `did you mean 'x'?`.

    Of more than one line holds, those that are most like it, and how many there are besides.
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, 1)
    near += [each for each in names if each.lower() == name.lower()]
    if near:
        return f"did you mean {near[0]!r}?"
    if len(names) <= _LISTED:
        return f"known: {', '.join(names) or 'none'}"
    alike = sorted(difflib.get_close_matches(name, names, _NEAREST, cutoff=0.0))
    return f"known: {', '.join(alike)} and {len(names) - _NEAREST} more"


def first_line(error: object, otherwise: str | None = None) -> str:
    """The first line of what an error says, to which libraries add paragraphs of advice.

    Its class where it says nothing, or `otherwise`.
    """
    lines = str(error).strip().splitlines()
    if lines:
        return lines[0]
    return type(error).__name__ if otherwise is None else otherwise


def described(error: BaseException) -> str:
    """The class of an error and the first line of what it says, if anything."""
    line = first_line(error, "")
    return f"{type(error).__name__}: {line}" if line else type(error).__name__
