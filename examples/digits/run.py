"""Classify the held-out digits with a compiled network, and with ONNX Runtime beside it.

hybridc compile examples/digits/digits.onnx -o out/digits.hyb
python examples/digits/run.py out/digits.hyb
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
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("artifact", type=Path, help="what hybridc compiled from digits.onnx")
    given = parser.parse_args(arguments)
    ours = accuracy(hybridc.InferenceSession(given.artifact))
    theirs = accuracy(onnxruntime.InferenceSession(HERE / "digits.onnx"))
    print(f"accuracy  {ours:.4f}  {given.artifact}")
    print(f"accuracy  {theirs:.4f}  ONNX Runtime")
    return ours, theirs


def accuracy(session: Any) -> float:
    """Share of the held-out images whose digit the session finds; both sessions are called alike."""
    held_out = np.load(HERE / "digits-test.npz")
    images, labels = held_out["image"], held_out["label"]
    logits = [session.run(None, {"image": image[np.newaxis]})[0] for image in images]
    return float(np.mean(np.concatenate(logits).argmax(1) == labels))


if __name__ == "__main__":
    main()
