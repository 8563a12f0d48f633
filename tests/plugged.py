"""Plug-ins in files of their own, held to what is asked of those in the repository.

`pytest tests/test_strategies.py --plugin FILE` runs a suite on the plug-ins in FILE alone.
"""

from collections.abc import Iterable
from pathlib import Path

FILES: list[Path] = []  # conftest.py fills it before any test is collected


def under_test(names: Iterable[str]) -> list[str]:
    """All names, or with `--plugin` those of its files."""
    given = {path.stem.replace("_", "-") for path in FILES}
    return [name for name in names if not FILES or name in given]
