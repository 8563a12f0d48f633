"""Models of the contracts' benchmark, and samples of each kind that models are meant for.

Samples of different `seeds` are different and of one kind: what calibrates, what verifies, and what
nobody has seen.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
from subjects import EXAMPLES, Feed

from hybridc.compiler import frontend
from hybridc.compiler.errors import InputError, hint
from hybridc.compiler.model import random_feed

CALIBRATION, VALIDATION, FRESH = range(3)
_PARTS = 3


@dataclass(frozen=True)
class Source:
    """A model's file, and so many samples of one of the three kinds of use."""

    file: Path
    samples: Callable[[int, int], Sequence[Feed]]


def named(name: str) -> Source:
    """A model by name.  Raises InputError where there is none of it."""
    if name not in MODELS:
        raise InputError(f"no model is named {name!r}; {hint(name, MODELS)}")
    return MODELS[name]()


def digits() -> Source:
    """The trained digits: real images, a third of those held out for each use."""
    folder = EXAMPLES / "digits"
    images = np.load(folder / "digits-test.npz")["image"]
    order = np.random.default_rng(0).permutation(len(images))

    def samples(use: int, count: int) -> Sequence[Feed]:
        return [{"image": images[i][np.newaxis]} for i in order[use::_PARTS][:count]]

    return Source(folder / "digits.onnx", samples)


def _random(name: str) -> Source:
    """A model of the zoo with random weights, and random inputs, which cost what real ones cost."""
    import models  # imports torch

    file = models.onnx_file(name)
    inputs = frontend.load(file).inputs

    def samples(use: int, count: int) -> Sequence[Feed]:
        seeds = np.random.SeedSequence((1, use)).generate_state(count)
        return [random_feed(inputs, int(seed)) for seed in seeds]

    return Source(file, samples)


MODELS: Mapping[str, Callable[[], Source]] = MappingProxyType(
    {
        "digits": digits,
        **{
            name: (lambda name=name: _random(name))
            for name in ("bert-tiny", "resnet-18", "resnet-50", "bert-base")
        },
    }
)
LADDER = ("digits", "bert-tiny", "resnet-18")
# Networks of `trained_models`, which takes torch.
TRAINED = ("small-cnn", "mlp-mixer", "lstm-tagger", "small-vit", "gpt-decoder", "unet")
