"""The zoo's architectures of `transformers`: tiny configurations with random weights."""

import importlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

# What most language models call their sizes, and the tokens that the examples are drawn from.
VOCABULARY = 60
_TEXT: Mapping[str, Any] = MappingProxyType(
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
_GROUPED: Mapping[str, Any] = MappingProxyType({**_TEXT, "num_key_value_heads": 2})
_IMAGE: Mapping[str, Any] = MappingProxyType(
    {
        "image_size": 32,
        "patch_size": 8,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
    }
)
_STAGES: Mapping[str, Any] = MappingProxyType(
    {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}
)


class Output(nn.Module):
    """A model of `transformers` that gives one of its outputs."""

    def __init__(self, model: nn.Module, argument: str, output: str | int) -> None:
        super().__init__()
        self.model, self.argument, self.output = model, argument, output

    def forward(self, x: torch.Tensor) -> Any:
        return self.model(**{self.argument: x}, return_dict=True)[self.output]


def _model(name: str, config: str, options: Mapping[str, Any]) -> nn.Module:
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


def text(name: str, config: str, **options: Any) -> Callable[[], tuple[nn.Module, tuple[Any, ...]]]:
    """A model of token ids."""

    def build() -> tuple[nn.Module, tuple[Any, ...]]:
        model = _model(name, config, {"use_cache": False, **options})
        return Output(model, "input_ids", 0), (torch.randint(3, VOCABULARY, (1, 11)),)

    return build


def vision(
    name: str, config: str, size: int = 32, **options: Any
) -> Callable[[], tuple[nn.Module, tuple[Any, ...]]]:
    """A model of an image."""

    def build() -> tuple[nn.Module, tuple[Any, ...]]:
        model = Output(_model(name, config, options), "pixel_values", 0)
        return model, (torch.randn(1, 3, size, size),)

    return build


def audio(
    name: str, config: str, argument: str, *shape: int, **options: Any
) -> Callable[[], tuple[nn.Module, tuple[Any, ...]]]:
    """A model of samples or of a spectrogram."""

    def build() -> tuple[nn.Module, tuple[Any, ...]]:
        return Output(_model(name, config, options), argument, 0), (torch.randn(1, *shape),)

    return build


_WAVE: Mapping[str, Any] = MappingProxyType(
    {
        **_TEXT,
        "conv_dim": (8, 12),
        "conv_kernel": (10, 3),
        "conv_stride": (5, 2),
        "num_conv_pos_embeddings": 8,
        "num_conv_pos_embedding_groups": 4,
        "num_feat_extract_layers": 2,
    }
)
_BART: Mapping[str, Any] = MappingProxyType(
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

TRANSFORMERS: Mapping[str, Callable[[], tuple[nn.Module, tuple[Any, ...]]]] = MappingProxyType(
    {
        # Language.
        "albert": text("AlbertModel", "AlbertConfig", **_TEXT, embedding_size=16),
        "bart_encoder": text("bart.modeling_bart.BartEncoder", "BartConfig", **_BART),
        "bert": text("BertModel", "BertConfig", **_TEXT),
        "bloom": text(
            "BloomModel", "BloomConfig", vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=4
        ),
        "clip_text": text("CLIPTextModel", "CLIPTextConfig", **_TEXT),
        "deberta_v2": text(
            "DebertaV2Model",
            "DebertaV2Config",
            **_TEXT,
            relative_attention=True,
            pos_att_type=["p2c", "c2p"],
        ),
        "distilbert": text(
            "DistilBertModel",
            "DistilBertConfig",
            vocab_size=VOCABULARY,
            dim=32,
            n_layers=2,
            n_heads=4,
            hidden_dim=48,
        ),
        "electra": text("ElectraModel", "ElectraConfig", **_TEXT, embedding_size=16),
        "falcon": text("FalconModel", "FalconConfig", **_TEXT),
        "fnet": text("FNetModel", "FNetConfig", **_TEXT),
        "gemma": text("GemmaModel", "GemmaConfig", **_GROUPED, head_dim=8),
        "gpt2": text(
            "GPT2Model",
            "GPT2Config",
            vocab_size=VOCABULARY,
            n_embd=32,
            n_layer=2,
            n_head=4,
            n_positions=40,
        ),
        "gpt_neox": text("GPTNeoXModel", "GPTNeoXConfig", **_TEXT),
        "gptj": text(
            "GPTJModel",
            "GPTJConfig",
            vocab_size=VOCABULARY,
            n_embd=32,
            n_layer=2,
            n_head=4,
            rotary_dim=4,
            n_positions=40,
        ),
        "llama": text("LlamaModel", "LlamaConfig", **_GROUPED),
        "mistral": text("MistralModel", "MistralConfig", **_GROUPED, sliding_window=4),
        "mixtral": text(
            "MixtralModel",
            "MixtralConfig",
            **_GROUPED,
            num_local_experts=4,
            num_experts_per_tok=2,
            experts_implementation="batched_mm",  # the one that transformers exports
        ),
        "modernbert": text("ModernBertModel", "ModernBertConfig", **_TEXT),
        "mpnet": text("MPNetModel", "MPNetConfig", **_TEXT),
        "opt": text(
            "OPTModel",
            "OPTConfig",
            **{k: v for k, v in _TEXT.items() if k != "intermediate_size"},
            ffn_dim=48,
            word_embed_proj_dim=32,
        ),
        "phi": text("PhiModel", "PhiConfig", **_TEXT),
        "qwen2": text("Qwen2Model", "Qwen2Config", **_GROUPED),
        "qwen3": text("Qwen3Model", "Qwen3Config", **_GROUPED, head_dim=8),
        "roberta": text("RobertaModel", "RobertaConfig", **_TEXT),
        "roformer": text("RoFormerModel", "RoFormerConfig", **_TEXT),
        "squeezebert": text("SqueezeBertModel", "SqueezeBertConfig", **_TEXT, embedding_size=32),
        "t5_encoder": text(
            "T5EncoderModel",
            "T5Config",
            vocab_size=VOCABULARY,
            d_model=32,
            d_kv=8,
            d_ff=48,
            num_layers=2,
            num_heads=4,
        ),
        # Vision.
        "beit": vision("BeitModel", "BeitConfig", **_IMAGE, use_relative_position_bias=True),
        "bit": vision(
            "BitModel",
            "BitConfig",
            embedding_size=8,
            num_groups=4,
            **_STAGES,
            layer_type="bottleneck",
        ),
        "clip_vision": vision("CLIPVisionModel", "CLIPVisionConfig", **_IMAGE),
        "convnext": vision("ConvNextModel", "ConvNextConfig", **_STAGES),
        "convnext_v2": vision("ConvNextV2Model", "ConvNextV2Config", **_STAGES),
        "cvt": vision(
            "CvtModel",
            "CvtConfig",
            embed_dim=[16, 24, 32],
            num_heads=[1, 2, 4],
            depth=[1, 2, 3],
        ),
        "deit": vision("DeiTModel", "DeiTConfig", **_IMAGE),
        "dinov2": vision("Dinov2Model", "Dinov2Config", **_IMAGE),
        "efficientnet": vision(
            "EfficientNetModel",
            "EfficientNetConfig",
            image_size=32,
            width_coefficient=0.25,
            depth_coefficient=0.25,
            hidden_dim=320,
        ),
        "focalnet": vision(
            "FocalNetModel", "FocalNetConfig", image_size=32, embed_dim=16, depths=[1, 1]
        ),
        "levit": vision(
            "LevitModel",
            "LevitConfig",
            64,
            image_size=64,
            hidden_sizes=[16, 24, 32],
            num_attention_heads=[2, 3, 4],
            depths=[1, 1, 1],
            key_dim=[8, 8, 8],
        ),
        "mobilenet_v1": vision("MobileNetV1Model", "MobileNetV1Config", depth_multiplier=0.25),
        "mobilenet_v2": vision("MobileNetV2Model", "MobileNetV2Config", depth_multiplier=0.35),
        "mobilevit": vision(
            "MobileViTModel",
            "MobileViTConfig",
            64,
            image_size=64,
            hidden_sizes=[16, 24, 32],
            neck_hidden_sizes=[8, 8, 16, 16, 24, 24, 32],
            num_attention_heads=2,
        ),
        "poolformer": vision("PoolFormerModel", "PoolFormerConfig", **_STAGES),
        "pvt": vision(
            "PvtModel",
            "PvtConfig",
            image_size=32,
            hidden_sizes=[8, 16, 24, 32],
            depths=[1, 1, 1, 1],
            num_attention_heads=[1, 2, 3, 4],
            sequence_reduction_ratios=[4, 2, 1, 1],
            patch_sizes=[4, 2, 2, 2],
        ),
        "regnet": vision(
            "RegNetModel", "RegNetConfig", embedding_size=8, groups_width=4, **_STAGES
        ),
        "resnet_basic": vision(
            "ResNetModel", "ResNetConfig", embedding_size=8, layer_type="basic", **_STAGES
        ),
        "resnet_bottleneck": vision(
            "ResNetModel", "ResNetConfig", embedding_size=8, layer_type="bottleneck", **_STAGES
        ),
        "segformer": vision(
            "SegformerForSemanticSegmentation",
            "SegformerConfig",
            64,
            depths=[1, 1, 1, 1],
            hidden_sizes=[8, 16, 24, 32],
            num_attention_heads=[1, 2, 3, 4],
            decoder_hidden_size=16,
        ),
        "swin": vision(
            "SwinModel",
            "SwinConfig",
            image_size=32,
            patch_size=2,
            embed_dim=12,
            depths=[2, 2],
            num_heads=[2, 3],
            window_size=4,
        ),
        "swin_v2": vision(
            "Swinv2Model",
            "Swinv2Config",
            image_size=32,
            patch_size=2,
            embed_dim=12,
            depths=[2, 2],
            num_heads=[2, 3],
            window_size=4,
        ),
        "vit": vision("ViTModel", "ViTConfig", **_IMAGE),
        "yolos": vision(
            "YolosForObjectDetection",
            "YolosConfig",
            **dict[str, Any](_IMAGE, image_size=[32, 32]),
            num_detection_tokens=5,
        ),
        # Audio.
        "audio_spectrogram": audio(
            "ASTModel",
            "ASTConfig",
            "input_values",
            40,
            16,
            **{**_IMAGE, "image_size": 16},
            max_length=40,
            num_mel_bins=16,
            frequency_stride=5,
            time_stride=5,
        ),
        "hubert": audio("HubertModel", "HubertConfig", "input_values", 400, **_WAVE),
        "wav2vec2": audio("Wav2Vec2Model", "Wav2Vec2Config", "input_values", 400, **_WAVE),
        "whisper_encoder": audio(
            "whisper.modeling_whisper.WhisperEncoder",
            "WhisperConfig",
            "input_features",
            16,
            40,
            **_BART,
            num_mel_bins=16,
            max_source_positions=20,
        ),
    }
)
