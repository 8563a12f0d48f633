"""Whose fault it is when a plug-in raises: its author's, not ours."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from hybridc.compiler import plugin
from hybridc.compiler.errors import HybridcError, PluginError, described

_OURS = "hybridc."


@contextmanager
def blaming(made: Any) -> Generator[None]:
    """Turn what somebody else's plug-in raises into PluginError, which names it.

    What one of ours raises stays a fault of ours.
    """
    try:
        yield
    except HybridcError:
        raise
    except Exception as error:  # whatever its author's code raises
        if type(made).__module__.startswith(_OURS):
            raise
        raise PluginError(f"{plugin.text(made)} failed: {described(error)}") from error
