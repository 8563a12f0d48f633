"""Options that several verbs share, and the checks of them that need no heavy import."""

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
    help="A Python file that adds a pass, rule, strategy or backend.  It is executed, so use only"
    " files that you trust.",
)
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
    " open: ?, a name, 1..64 for bounds, batch:1..64@8 to measure at 8.  Sizes that are not given"
    " stay open.",
)
THREADS = click.option(
    "--threads",
    type=click.IntRange(min=1),
    metavar="N",
    help="Number of threads; default: one per available core.",
)
TARGET = click.option(
    "--target",
    default="cpu",
    show_default=True,
    help="cpu (this host), avx2, avx512, cuda (this host's GPU), another GPU by name (nvidia/h100,"
    " sm_90a, …), or a TVM target as JSON.",
)
DTYPE = click.option(
    "--dtype",
    type=click.Choice([name for name in precisions.names() if name != precisions.AUTO]),
    metavar="PRECISION",
    default="fp32",
    show_default=True,
    help=f"Precision of matrix products and convolutions: {', '.join(precisions.names()[1:])}."
    "  Sums, norms, softmax, inputs and outputs stay fp32.",
)
SEED = click.option(
    "--seed", metavar="N", default=0, show_default=True, help="Seed of the random inputs."
)
RTOL = click.option(
    "--rtol",
    type=float,
    metavar="NUMBER",
    help="Relative tolerance; default: by precision (fp32: 1e-3).",
)
ATOL = click.option(
    "--atol",
    type=float,
    metavar="NUMBER",
    help="Absolute tolerance; default: by precision (fp32: 1e-4).",
)
PIPELINE = click.option(
    "--pipeline", default="default", show_default=True, help="The passes to run."
)
BUDGET = click.option("--budget", metavar="10min", help="Stop tuning after this time.")
LOG = click.option(
    "--log",
    metavar="URL",
    help="The tuning log: a path, sqlite:///PATH or postgresql://...; default: HYBRIDC_LOG if set,"
    " else a file in the cache directory.",
)
UNTRUSTED = click.option(
    "--untrusted",
    is_flag=True,
    help="First import the model and run its reference in a sandboxed process (10 s, 2 GB): a file"
    " that crashes or overloads it is refused.",
)
MONITOR = click.option(
    "--monitor",
    is_flag=True,
    help="Sample CPU, memory, GPU and energy use meanwhile, as far as the machine reports them.",
)
MONITOR_INTERVAL = click.option(
    "--monitor-interval",
    default="100ms",
    show_default=True,
    metavar="TIME",
    help="The time between two samples.",
)
TRACE = click.option(
    "--trace",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write a trace of the steps here, for ui.perfetto.dev or chrome://tracing.",
)
JSON = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document instead of text."
)
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
    from hybridc.compiler import frontend, untrusted

    for model in models:
        if frontend.is_onnx(model) and model.stat().st_size <= untrusted.GLANCED:
            untrusted.glance(model)
