"""Options that several verbs share, and what they say that is wrong before anything is imported."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from hybridc.compiler.dims import Shape
from hybridc.compiler.orchestration import precisions

Shapes = Mapping[str, Shape]

MODEL_PATH = click.Path(path_type=Path)

PLUGIN = click.option(
    "--plugin",
    multiple=True,
    type=click.Path(path_type=Path),
    help="A Python file with one more pass, rule, strategy or backend.  It is run: give your own.",
)
BACKEND_PLUGIN = click.option(
    "--plugin",
    multiple=True,
    type=click.Path(path_type=Path),
    help="A Python file with a backend that the artifact needs.  It is run: give your own.",
)
SHAPE = click.option(
    "--shape",
    multiple=True,
    metavar="NAME=1x3x224x224",
    help="The shape of an input, or NAME=64 for an axis that the model names.  A size may stay"
    " open: ? or a name, 1..64 within bounds, batch:1..64@8 measured at 8; so does what is not"
    " given.",
)
THREADS = click.option(
    "--threads",
    type=click.IntRange(min=1),
    metavar="N",
    help="Threads to run on; all cores by default.",
)
TARGET = click.option(
    "--target",
    default="cpu",
    show_default=True,
    help="cpu (this host), avx2, avx512, a GPU (cuda: this host's; nvidia/h100, sm_90a, …), or a"
    " TVM target in JSON.",
)
DTYPE = click.option(
    "--dtype",
    type=click.Choice([name for name in precisions.names() if name != precisions.AUTO]),
    metavar="PRECISION",
    default="fp32",
    show_default=True,
    help=f"Multiply in this precision: {', '.join(precisions.names()[1:])}; sums, norms, softmax,"
    " inputs and outputs stay fp32.",
)
SEED = click.option(
    "--seed", metavar="N", default=0, show_default=True, help="Seed of the random inputs."
)
RTOL = click.option(
    "--rtol",
    type=float,
    metavar="NUMBER",
    help="Relative tolerance; by dtype if not set (fp32: 1e-3).",
)
ATOL = click.option(
    "--atol",
    type=float,
    metavar="NUMBER",
    help="Absolute tolerance; by dtype if not set (fp32: 1e-4).",
)
PIPELINE = click.option("--pipeline", default="default", show_default=True, help="Passes to run.")
BUDGET = click.option("--budget", metavar="10min", help="Stop tuning after this time.")
LOG = click.option(
    "--log",
    metavar="URL",
    help="The tuning log: a path, sqlite:///PATH or postgresql://...; HYBRIDC_LOG, or a file in the"
    " cache directory, if not set.",
)
UNTRUSTED = click.option(
    "--untrusted",
    is_flag=True,
    help="Import the model in a process with limits first (10 s, 2 GB), and run its reference"
    " there: a file that crashes or overloads a reader is refused.",
)
MONITOR = click.option(
    "--monitor",
    is_flag=True,
    help="Sample CPU, memory, GPUs and energy meanwhile, as far as the machine tells them.",
)
MONITOR_INTERVAL = click.option(
    "--monitor-interval",
    default="100ms",
    show_default=True,
    metavar="TIME",
    help="Between two samples.",
)
TRACE = click.option(
    "--trace",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Where to write a trace of the steps, for ui.perfetto.dev or chrome://tracing.",
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
VERBOSE = click.option("-v", "--verbose", is_flag=True, help="Tell each step on stderr.")


def shapes_of(models: Sequence[Path], texts: Sequence[str]) -> Shapes:
    """Read the values of `--shape`.

    Raises InputError where one is wrong, or a model is no file of a kind that is known: at once,
    not after the seconds in which TVM is imported.
    """
    from hybridc.compiler import frontend

    for model in models:
        frontend.is_onnx(model)
    return dict(map(frontend.parse_shape, texts))


def glance(models: Sequence[Path]) -> None:
    """Let another process read the ONNX files first, where that is cheap.

    Raises ModelError where one of them is none, or is too much for a reader.
    """
    from hybridc.compiler import frontend, untrusted

    for model in models:
        if frontend.is_onnx(model) and model.stat().st_size <= untrusted.GLANCED:
            untrusted.glance(model)
