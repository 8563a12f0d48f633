"""Trained models, with data of three kinds: to calibrate on, to verify on, and kept for later.

Each has a figure that says what it is good for, from data that calibrate nothing.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybridc.compiler.assurance.contract import Contract

EXAMPLES = Path(__file__).parent.parent / "examples"
# A latency that nothing keeps: the cascade then tries every stage.
AT_ONCE = "1ns"

Feed = Mapping[str, NDArray[Any]]
Validate = Callable[[Any], float]


@dataclass(frozen=True)
class Subject:
    """A trained model: its file, samples to calibrate on and to verify on, its figure and limit.

    The figure may `drop` by so much from the reference's, or shall be `least`.
    """

    name: str
    file: Path
    calibration: Sequence[Feed]
    validation: Sequence[Feed]
    figure: str
    validate: Validate
    drop: float | None = None
    least: float | None = None

    def contract(self, timed: bool) -> Contract:
        """The limit, and where the clock runs one on latency that makes the cascade go on."""
        return Contract(
            max_latency=AT_ONCE if timed else None,
            validate=self.validate,
            max_drop=None if self.drop is None else {"validate": self.drop},
            min_accuracy=None if self.least is None else {"validate": self.least},
        )

    @property
    def loss(self) -> float:
        """How much the figure may lose, where the reference's own is 1 if it compares with that."""
        if self.drop is not None:
            return self.drop
        assert self.least is not None
        return 1.0 - self.least

    @property
    def limit(self) -> str:
        """`drop 0.005` or `at least 0.99`."""
        return f"drop {self.drop:g}" if self.drop is not None else f"at least {self.least:g}"


def digits(_: Path) -> Subject:
    """The convolutional network of the example: accuracy on images that calibrate nothing."""
    folder = EXAMPLES / "digits"
    images = np.load(folder / "digits-test.npz")["image"]
    labels = np.load(folder / "digits-test-labels.npz")["label"]
    feeds = [{"image": image[np.newaxis]} for image in images]
    first = len(feeds) // 4

    def accuracy(session: Any) -> float:
        right = [
            session.run(None, feed)[0].argmax() == label
            for feed, label in zip(feeds[first:], labels[first:], strict=True)
        ]
        return float(np.mean(right))

    file = folder / "digits.onnx"
    return Subject("digits", file, feeds[:first], feeds[first:], "accuracy", accuracy, drop=0.005)


def sentences(folder: Path) -> Subject:
    """The sentence encoder: rank correlation of similarities with those that torch computes."""
    sys.path.insert(0, str(EXAMPLES / "sentences"))
    import export
    import run
    from scipy.stats import spearmanr

    file = folder / "sentences.onnx"
    export.export(export.Encoder().eval(), file)
    few, held_out = (
        run.tokenise((EXAMPLES / "sentences" / name).read_text().splitlines())
        for name in ("sentences.txt", "held-out.txt")
    )
    wanted = np.concatenate([run.embed(vectors, feed) for vectors, feed in run.judged(held_out)])
    above = np.triu_indices(len(held_out), 1)

    def correlation(session: Any) -> float:
        found = [run.embed(session.run(None, feed)[0], feed) for feed in held_out]
        ours = np.concatenate(found)
        return float(spearmanr((ours @ ours.T)[above], (wanted @ wanted.T)[above]).statistic)

    return Subject("sentences", file, few, held_out, "Spearman", correlation, least=0.99)


SUBJECTS: Mapping[str, Callable[[Path], Subject]] = MappingProxyType(
    {"digits": digits, "sentences": sentences}
)
