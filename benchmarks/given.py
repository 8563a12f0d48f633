"""What benchmarks that compile one model over and over are given."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Given:
    """The model's ONNX file, and how often it is compiled."""

    model: Path
    rounds: int


def model_and_rounds(about: str | None, arguments: Sequence[str] | None = None) -> Given:
    """Read `--model` and `--rounds`; ResNet-50, three times, if not set."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--model", type=Path, help="an .onnx file; ResNet-50 if not set")
    parser.add_argument("--rounds", type=int, default=3)
    found = parser.parse_args(arguments)
    return Given(found.model or _resnet50(), found.rounds)


def _resnet50() -> Path:
    import models  # imports torch

    return models.onnx_file("resnet-50")
