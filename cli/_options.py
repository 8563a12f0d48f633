"""Options that several verbs share."""

from pathlib import Path

import click

MODEL_PATH = click.Path(path_type=Path)

PLUGIN = click.option(
    "--plugin",
    multiple=True,
    type=click.Path(path_type=Path),
    help="A Python file with one more pass or schedule rule.  It is run: give your own.",
)
SHAPE = click.option(
    "--shape",
    multiple=True,
    metavar="NAME=1x3x224x224",
    help="The shape of an input with open dimensions; once for each such input.",
)
THREADS = click.option(
    "--threads", type=click.IntRange(min=1), help="Threads to run on; all cores by default."
)
TARGET = click.option(
    "--target",
    default="cpu",
    show_default=True,
    help="cpu (this host), avx2, avx512, or a TVM target in JSON.",
)
LOG = click.option(
    "--log",
    metavar="URL",
    help="The tuning log: a path, sqlite:///PATH or postgresql://...; HYBRIDC_LOG, or a file in the"
    " cache directory, if not set.",
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
VERBOSE = click.option("-v", "--verbose", is_flag=True, help="Tell each step on stderr.")
