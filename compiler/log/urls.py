"""Where a tuning log is, as people write it: what is a path, and what must not be shown."""

import re

# A user with a password; `postgresql:` before `//` is no user.
_PASSWORD = re.compile(r"(^[^:/@]+(?=:[^/])|[/:][^:/@]*):.*@")
# What a URL becomes by a typing error: `postgresql:/u:secret@host/x`, `postgresql//u:secret@host`.
_MISTYPED = re.compile(r"(?!\.{0,2}/|~)([a-z][a-z0-9+]*:/|.*:.*@)")


def is_path(text: str) -> bool:
    """Whether this is a file, and neither a URL nor what was meant to be one.

    A path that looks like one can be written with `./` before it.
    """
    return "://" not in text and not _MISTYPED.match(text)


def hidden(text: str) -> str:
    """What is, or was meant to be, a URL, without the password."""
    return _PASSWORD.sub(r"\1:***@", text)
