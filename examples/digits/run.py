"""Classify the held-out digits with a compiled network, and with ONNX Runtime beside it.

`hybridc compile examples/digits/digits.onnx -o out/digits.hyb` makes the artifact to give it.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

import hybridc

HERE = Path(__file__).parent


def main(arguments: list[str] | None = None) -> tuple[float, float]:
    """Print and give the accuracy of the artifact and of ONNX Runtime."""
    parser = argparse.ArgumentParser(description="Classify the held-out digits.")
    parser.add_argument("artifact", type=Path, help="what hybridc compiled from digits.onnx")
    path: Path = parser.parse_args(arguments).artifact
    ours = accuracy(hybridc.InferenceSession(path))
    theirs = accuracy(onnxruntime.InferenceSession(HERE / "digits.onnx"))
    print(f"accuracy on the held-out images: {ours:.4f} {path}, {theirs:.4f} ONNX Runtime")
    return ours, theirs


def accuracy(session: Any) -> float:
    """Share of the held-out images whose digit a session finds; both kinds are called alike."""
    images = np.load(HERE / "digits-test.npz")["image"]
    labels = np.load(HERE / "digits-test-labels.npz")["label"]
    logits = [session.run(None, {"image": image[np.newaxis]})[0] for image in images]
    return float(np.mean(np.concatenate(logits).argmax(1) == labels))


if __name__ == "__main__":
    main()
