"""The command lines that several benchmarks have in common."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


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
        "--rounds", type=int, default=3, help="how often it is compiled (%(default)s)"
    )
    found = parser.parse_args(arguments)
    return Compilations(found.model or _resnet50(), found.rounds)


def none(about: str | None) -> None:
    """Take no arguments, so that `--help` tells what is measured and measures nothing."""
    argparse.ArgumentParser(description=about).parse_args()


def _resnet50() -> Path:
    import models  # imports torch

    return models.onnx_file("resnet-50")
