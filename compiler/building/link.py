"""Link kernels into a shared library, by the C compiler of this host."""

from collections.abc import Sequence
from pathlib import Path

from tvm.support import cc

from hybridc.compiler.errors import InputError


def check() -> None:
    """Raise InputError if there is no C compiler, which makes a library of kernels."""
    if cc.get_cc() is None:
        raise InputError("no C compiler is found, and one links the kernels: install gcc or clang")


def library(output: str, objects: Sequence[str], options: Sequence[str] = ()) -> None:
    """Link a library, with the mathematical functions that kernels may call.

    TVM prefers g++, which makes the same library of kernels as gcc in twice the time.
    Raises RuntimeError or OSError where that fails.
    """
    found = Path(cc.get_cc() or "")
    plain = found.with_name("gcc") if found.name == "g++" and found.is_absolute() else found
    command = plain if plain.exists() else found
    cc.create_shared(output, [*objects, "-lm"], list(options), cc=str(command))
