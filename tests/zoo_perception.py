"""Models of images and of sounds of the zoo."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from zoo_parts import BART, IMAGE, STAGES, TEXT, Build, audio, vision

WAVE: Mapping[str, Any] = MappingProxyType(
    {
        **TEXT,
        "conv_dim": (8, 12),
        "conv_kernel": (10, 3),
        "conv_stride": (5, 2),
        "num_conv_pos_embeddings": 8,
        "num_conv_pos_embedding_groups": 4,
        "num_feat_extract_layers": 2,
    }
)

VISION: Mapping[str, Build] = MappingProxyType(
    {
        "beit": vision("BeitModel", "BeitConfig", **IMAGE, use_relative_position_bias=True),
        "bit": vision(
            "BitModel",
            "BitConfig",
            embedding_size=8,
            num_groups=4,
            **STAGES,
            layer_type="bottleneck",
        ),
        "clip_vision": vision("CLIPVisionModel", "CLIPVisionConfig", **IMAGE),
        "convnext": vision("ConvNextModel", "ConvNextConfig", **STAGES),
        "convnext_v2": vision("ConvNextV2Model", "ConvNextV2Config", **STAGES),
        "cvt": vision(
            "CvtModel",
            "CvtConfig",
            embed_dim=[16, 24, 32],
            num_heads=[1, 2, 4],
            depth=[1, 2, 3],
        ),
        "deit": vision("DeiTModel", "DeiTConfig", **IMAGE),
        "dinov2": vision("Dinov2Model", "Dinov2Config", **IMAGE),
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
        "poolformer": vision("PoolFormerModel", "PoolFormerConfig", **STAGES),
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
        "regnet": vision("RegNetModel", "RegNetConfig", embedding_size=8, groups_width=4, **STAGES),
        "resnet_basic": vision(
            "ResNetModel", "ResNetConfig", embedding_size=8, layer_type="basic", **STAGES
        ),
        "resnet_bottleneck": vision(
            "ResNetModel", "ResNetConfig", embedding_size=8, layer_type="bottleneck", **STAGES
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
        "vit": vision("ViTModel", "ViTConfig", **IMAGE),
        "yolos": vision(
            "YolosForObjectDetection",
            "YolosConfig",
            **dict[str, Any](IMAGE, image_size=[32, 32]),
            num_detection_tokens=5,
        ),
    }
)

AUDIO: Mapping[str, Build] = MappingProxyType(
    {
        "audio_spectrogram": audio(
            "ASTModel",
            "ASTConfig",
            "input_values",
            40,
            16,
            **{**IMAGE, "image_size": 16},
            max_length=40,
            num_mel_bins=16,
            frequency_stride=5,
            time_stride=5,
        ),
        "hubert": audio("HubertModel", "HubertConfig", "input_values", 400, **WAVE),
        "wav2vec2": audio("Wav2Vec2Model", "Wav2Vec2Config", "input_values", 400, **WAVE),
        "whisper_encoder": audio(
            "whisper.modeling_whisper.WhisperEncoder",
            "WhisperConfig",
            "input_features",
            16,
            40,
            **BART,
            num_mel_bins=16,
            max_source_positions=20,
        ),
    }
)
