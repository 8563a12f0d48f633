"""What the command lines of benchmarks have in common."""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from hybridc.compiler.errors import HybridcError
from hybridc.compiler.filesystem.files import reason


def run(main: Callable[[], object]) -> NoReturn:
    """Run a script and leave with the number that it returns, 0 for anything else.

    What is wrong with a name or a file that it was given is one line and exit code 2, as of
    `hybridc` itself; an interruption is 130.
    """
    try:
        code = main()
    except HybridcError as error:
        _fail(str(error), error.exit_code)
    except OSError as error:
        _fail(f"{error.filename}: {reason(error)}" if error.filename else reason(error), 2)
    except KeyboardInterrupt:
        _fail("interrupted", 130)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str, code: int) -> NoReturn:
    print(f"{Path(sys.argv[0]).name}: error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)


def count(text: str) -> int:
    """A number of things, one at least."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"one at least, got {number}")
    return number


@dataclass(frozen=True)
class Compilations:
    """Which model is compiled over and over (an ONNX file), and how often."""

    model: Path
    rounds: int


def model_and_rounds(about: str | None, arguments: Sequence[str] | None = None) -> Compilations:
    """Read `--model` and `--rounds`; ResNet-50, three times, if not set."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--model", type=Path, help="an .onnx file; ResNet-50 if not set")
    parser.add_argument(
        "--rounds", type=count, default=3, help="how often it is compiled (%(default)s)"
    )
    found = parser.parse_args(arguments)
    return Compilations(found.model or _resnet50(), found.rounds)


def none(about: str | None) -> None:
    """Take no arguments, so that `--help` tells what is measured and measures nothing."""
    argparse.ArgumentParser(description=about).parse_args()


def _resnet50() -> Path:
    import models  # imports torch

    return models.onnx_file("resnet-50")
