"""Options that several verbs share, and the checks of them that need no heavy import."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from hybridc.compiler.configuration.descriptions import DESCRIPTIONS
from hybridc.compiler.dims import Shape
from hybridc.compiler.orchestration import precisions

Shapes = Mapping[str, Shape]

MODEL_PATH = click.Path(path_type=Path)

_Command = TypeVar("_Command", bound=Callable[..., Any] | click.Command)


def option(*flags: str, **how: Any) -> Callable[[_Command], _Command]:
    """An option of a compilation, with the help text that its name has in `DESCRIPTIONS`."""
    name = max(flags, key=len).partition("/")[0].removeprefix("--").replace("-", "_")
    return click.option(*flags, help=DESCRIPTIONS[name], **how)


PLUGIN = option("--plugin", multiple=True, type=click.Path(path_type=Path))
BACKEND_PLUGIN = click.option(
    "--plugin",
    multiple=True,
    type=click.Path(path_type=Path),
    help="A Python file with a backend that the artifact needs.  It is executed, so use only files"
    " that you trust.",
)
SHAPE = click.option(
    "--shape",
    multiple=True,
    metavar="NAME=1x3x224x224",
    help="The shape of an input, or NAME=64 for an axis that the model names.  A size can stay"
    " open: ?, a name, 1..64 for bounds, ?%32 for multiples, batch:1..64@8 to measure at 8.  Sizes"
    " that are not given stay open.",
)
THREADS = option("--threads", type=click.IntRange(min=1), metavar="N")
TARGET = option("--target", default="cpu", show_default=True)
DTYPE = click.option(
    "--dtype",
    type=click.Choice([*precisions.names()[1:], *precisions.PAIRS]),
    metavar="PRECISION",
    default="fp32",
    show_default=True,
    help=f"Precision of matrix products and convolutions: {', '.join(precisions.names()[1:])};"
    f" or of activations and weights, such as {precisions.PAIRS[1]}.  Sums, norms, softmax, inputs"
    " and outputs stay fp32.",
)
SEED = option("--seed", metavar="N", default=0, show_default=True)
RTOL = option("--rtol", type=float, metavar="NUMBER")
ATOL = option("--atol", type=float, metavar="NUMBER")
PIPELINE = click.option(
    "--pipeline", default="default", show_default=True, help="The passes to run."
)
BUDGET = click.option("--budget", metavar="10min", help="Stop tuning after this time.")
LOG = option("--log", metavar="URL")
UNTRUSTED = click.option(
    "--untrusted",
    is_flag=True,
    help="First import the model and run its reference in a sandboxed process (10 s, 2 GB): a file"
    " that crashes or overloads it is refused.",
)
MONITOR = option("--monitor", is_flag=True)
MONITOR_INTERVAL = option("--monitor-interval", default="100ms", show_default=True, metavar="TIME")
TRACE = option("--trace", type=click.Path(path_type=Path), metavar="FILE")
JSON = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document instead of text."
)
QUIET = click.option("-q", "--quiet", is_flag=True, help="Report no steps.")
VERBOSE = click.option("-v", "--verbose", is_flag=True, help="Report each step on stderr.")


def shapes_of(models: Sequence[Path], texts: Sequence[str]) -> Shapes:
    """Parse the values of `--shape`.

    Raises InputError if one is malformed or a model is of an unknown kind: here, before the seconds
    that the import of TVM takes.
    """
    from hybridc.compiler import frontend

    for model in models:
        frontend.is_onnx(model)
    return dict(map(frontend.parse_shape, texts))


def glance(models: Sequence[Path]) -> None:
    """Have another process parse the ONNX files first, where that is cheap.

    Raises ModelError if one of them is not an ONNX model, or brings a parser down.
    """
    from hybridc.compiler import frontend
    from hybridc.compiler.processes import untrusted

    for model in models:
        if frontend.is_onnx(model) and model.stat().st_size <= untrusted.GLANCED:
            untrusted.glance(model)
