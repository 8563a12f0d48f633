"""Sizes and builders of the zoo's architectures of `transformers`: tiny, with random weights."""

import importlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

Build = Callable[[], tuple[nn.Module, tuple[Any, ...]]]

# What most language models call their sizes, and the tokens that the examples are drawn from.
VOCABULARY = 60
TEXT: Mapping[str, Any] = MappingProxyType(
    {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "max_position_embeddings": 40,
        "pad_token_id": 0,
    }
)
GROUPED: Mapping[str, Any] = MappingProxyType({**TEXT, "num_key_value_heads": 2})
IMAGE: Mapping[str, Any] = MappingProxyType(
    {
        "image_size": 32,
        "patch_size": 8,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
    }
)
STAGES: Mapping[str, Any] = MappingProxyType(
    {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}
)
BART: Mapping[str, Any] = MappingProxyType(
    {
        "vocab_size": VOCABULARY,
        "d_model": 32,
        "encoder_layers": 2,
        "decoder_layers": 1,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 48,
        "decoder_ffn_dim": 48,
        "max_position_embeddings": 40,
    }
)


class Output(nn.Module):
    """A model of `transformers` that gives one of its outputs."""

    def __init__(self, model: nn.Module, argument: str, output: str | int) -> None:
        super().__init__()
        self.model, self.argument, self.output = model, argument, output

    def forward(self, x: torch.Tensor) -> Any:
        return self.model(**{self.argument: x}, return_dict=True)[self.output]


def model_of(name: str, config: str, options: Mapping[str, Any]) -> nn.Module:
    """A class of `transformers`, in a folder of its models or at the top, by its configuration."""
    import transformers

    torch.manual_seed(0)
    folder, _, kind = name.rpartition(".")
    home = importlib.import_module(f"transformers.models.{folder}") if folder else transformers
    made = getattr(transformers, config)(**options)
    model: nn.Module = getattr(home, kind)(made).eval()
    for buffer in model.buffers():
        # The statistics of a fresh batch norm, 0 and 1, would hide faults.
        if buffer.dtype == torch.float32 and buffer.ndim == 1 and bool((buffer == 1).all()):
            nn.init.uniform_(buffer, 0.5, 2.0)
    return model


def text(name: str, config: str, **options: Any) -> Build:
    """A model of token ids."""

    def build() -> tuple[nn.Module, tuple[Any, ...]]:
        model = model_of(name, config, {"use_cache": False, **options})
        return Output(model, "input_ids", 0), (torch.randint(3, VOCABULARY, (1, 11)),)

    return build


def vision(name: str, config: str, size: int = 32, **options: Any) -> Build:
    """A model of an image."""

    def build() -> tuple[nn.Module, tuple[Any, ...]]:
        model = Output(model_of(name, config, options), "pixel_values", 0)
        return model, (torch.randn(1, 3, size, size),)

    return build


def audio(name: str, config: str, argument: str, *shape: int, **options: Any) -> Build:
    """A model of samples or of a spectrogram."""

    def build() -> tuple[nn.Module, tuple[Any, ...]]:
        return Output(model_of(name, config, options), argument, 0), (torch.randn(1, *shape),)

    return build
