"""The zoo's encoders with decoders, pairs of towers, detectors and recurrent networks."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import nn
from zoo_parts import BART, GROUPED, IMAGE, STAGES, TEXT, VOCABULARY, Build, model_of, text


class Named(nn.Module):
    """A model of `transformers` that takes several named inputs and gives one of its outputs."""

    def __init__(self, model: nn.Module, arguments: tuple[str, ...], output: str | int) -> None:
        super().__init__()
        self.model, self.arguments, self.output = model, arguments, output

    def forward(self, *values: torch.Tensor) -> Any:
        given = dict(zip(self.arguments, values, strict=True))
        return self.model(**given, return_dict=True)[self.output]


def pair(
    name: str, config: str, inputs: Mapping[str, Callable[[], torch.Tensor]], **options: Any
) -> Build:
    """A model of several inputs, each made by a function."""
    output = options.pop("output", 0)

    def build() -> tuple[nn.Module, tuple[Any, ...]]:
        model = Named(model_of(name, config, options), tuple(inputs), output)
        return model, tuple(make() for make in inputs.values())

    return build


def ids(length: int) -> Callable[[], torch.Tensor]:
    """Token ids."""
    return lambda: torch.randint(3, VOCABULARY, (1, length))


def noise(*shape: int) -> Callable[[], torch.Tensor]:
    """An image or a spectrogram."""
    return lambda: torch.randn(1, *shape)


_TOKENS = {"input_ids": ids(7), "decoder_input_ids": ids(5)}


def clip() -> tuple[nn.Module, tuple[Any, ...]]:
    """Both towers of CLIP, and how well texts and images fit."""
    options = {"text_config": {**TEXT, "eos_token_id": 2}, "vision_config": dict(IMAGE)}
    model = model_of("CLIPModel", "CLIPConfig", {**options, "projection_dim": 16})
    named = Named(model, ("input_ids", "pixel_values"), "logits_per_image")
    return named, (ids(6)(), noise(3, 32, 32)())


def detr() -> tuple[nn.Module, tuple[Any, ...]]:
    """A detector: a convolutional backbone, an encoder, and queries in a decoder."""
    from transformers import ResNetConfig

    backbone = ResNetConfig(
        embedding_size=8,
        layer_type="basic",
        out_features=["stage4"],  # pyright: ignore[reportCallIssue]
        **STAGES,
    )
    sizes = {k: v for k, v in BART.items() if k not in ("vocab_size", "max_position_embeddings")}
    options = {"backbone_config": backbone, "use_timm_backbone": False, "num_queries": 6, **sizes}
    options |= {"use_pretrained_backbone": False, "backbone": None}
    model = model_of("DetrForObjectDetection", "DetrConfig", options)
    return Named(model, ("pixel_values",), "pred_boxes"), (noise(3, 64, 64)(),)


class Recurrent(nn.Module):
    """Layers of a recurrent network, and a classifier of all its states."""

    def __init__(self, kind: str, **options: Any) -> None:
        super().__init__()
        self.recurrent = getattr(nn, kind)(6, 5, batch_first=True, **options)
        self.head = nn.Linear(10 if options.get("bidirectional") else 5, 3)

    def forward(self, x: torch.Tensor) -> Any:
        states, last = self.recurrent(x)
        return self.head(states), last


def recurrent(kind: str, **options: Any) -> Build:
    """A recurrent network and a sequence."""
    return lambda: (Recurrent(kind, **options), (torch.randn(2, 7, 6),))


SEQUENCES: Mapping[str, Build] = MappingProxyType(
    {
        "bart": pair("BartModel", "BartConfig", _TOKENS, **BART, use_cache=False),
        "clip": clip,
        "detr": detr,
        "gemma2": text("Gemma2Model", "Gemma2Config", **GROUPED, head_dim=8),
        "gru": recurrent("GRU"),
        "gru_both_ways": recurrent("GRU", num_layers=2, bidirectional=True),
        "lstm_both_ways": recurrent("LSTM", num_layers=2, bidirectional=True),
        "mamba": text(
            "MambaModel",
            "MambaConfig",
            vocab_size=VOCABULARY,
            hidden_size=16,
            state_size=4,
            num_hidden_layers=2,
        ),
        "phi3": text("Phi3Model", "Phi3Config", **GROUPED),
        "rnn_both_ways": recurrent("RNN", num_layers=2, bidirectional=True),
        "t5": pair(
            "T5Model",
            "T5Config",
            _TOKENS,
            vocab_size=VOCABULARY,
            d_model=32,
            d_kv=8,
            d_ff=48,
            num_layers=2,
            num_heads=4,
            use_cache=False,
        ),
        "whisper": pair(
            "WhisperModel",
            "WhisperConfig",
            {"input_features": noise(16, 40), "decoder_input_ids": ids(5)},
            **{k: v for k, v in BART.items() if k != "max_position_embeddings"},
            num_mel_bins=16,
            max_source_positions=20,
            max_target_positions=20,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            decoder_start_token_id=1,
            use_cache=False,
        ),
    }
)
# The families that a compiler of models should know, each with the zoo's models of it.
FAMILIES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "ALBERT": ("albert",),
        "BART": ("bart",),
        "BERT": ("bert", "roberta", "electra", "mpnet", "modernbert"),
        "CLIP": ("clip",),
        "ConvNeXt": ("convnext", "convnext_v2"),
        "DeBERTa": ("deberta_v2",),
        "DETR": ("detr", "yolos"),
        "DistilBERT": ("distilbert",),
        "EfficientNet": ("efficientnet",),
        "FNet": ("fnet",),
        "Gemma": ("gemma", "gemma2"),
        "GPT-2": ("gpt2", "gptj", "gpt_neox"),
        "GRU": ("gru", "gru_both_ways"),
        "Llama": ("llama", "mistral"),
        "LSTM": ("lstm", "lstm_both_ways", "rnn_both_ways"),
        "Mamba": ("mamba",),
        "Mixtral": ("mixtral",),
        "MobileNet": ("mobilenet_v1", "mobilenet_v2", "mobilevit"),
        "Phi": ("phi", "phi3"),
        "Qwen": ("qwen2", "qwen3"),
        "ResNet": ("resnet_basic", "resnet_bottleneck"),
        "SegFormer": ("segformer",),
        "Swin": ("swin", "swin_v2"),
        "T5": ("t5",),
        "UNet": ("unet",),
        "ViT": ("vit", "deit", "beit", "dinov2"),
        "Wav2Vec2": ("wav2vec2", "hubert"),
        "Whisper": ("whisper",),
    }
)
