"""Language models of the zoo."""

from collections.abc import Mapping
from types import MappingProxyType

from zoo_parts import BART, GROUPED, TEXT, VOCABULARY, Build, text

LANGUAGE: Mapping[str, Build] = MappingProxyType(
    {
        "albert": text("AlbertModel", "AlbertConfig", **TEXT, embedding_size=16),
        "bart_encoder": text("bart.modeling_bart.BartEncoder", "BartConfig", **BART),
        "bert": text("BertModel", "BertConfig", **TEXT),
        "bloom": text(
            "BloomModel", "BloomConfig", vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=4
        ),
        "clip_text": text("CLIPTextModel", "CLIPTextConfig", **TEXT),
        "deberta_v2": text(
            "DebertaV2Model",
            "DebertaV2Config",
            **TEXT,
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
        "electra": text("ElectraModel", "ElectraConfig", **TEXT, embedding_size=16),
        "falcon": text("FalconModel", "FalconConfig", **TEXT),
        "fnet": text("FNetModel", "FNetConfig", **TEXT),
        "gemma": text("GemmaModel", "GemmaConfig", **GROUPED, head_dim=8),
        "gpt2": text(
            "GPT2Model",
            "GPT2Config",
            vocab_size=VOCABULARY,
            n_embd=32,
            n_layer=2,
            n_head=4,
            n_positions=40,
        ),
        "gpt_neox": text("GPTNeoXModel", "GPTNeoXConfig", **TEXT),
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
        "llama": text("LlamaModel", "LlamaConfig", **GROUPED),
        "mistral": text("MistralModel", "MistralConfig", **GROUPED, sliding_window=4),
        "mixtral": text(
            "MixtralModel",
            "MixtralConfig",
            **GROUPED,
            num_local_experts=4,
            num_experts_per_tok=2,
            experts_implementation="batched_mm",  # the one that transformers exports
        ),
        "modernbert": text("ModernBertModel", "ModernBertConfig", **TEXT),
        "mpnet": text("MPNetModel", "MPNetConfig", **TEXT),
        "opt": text(
            "OPTModel",
            "OPTConfig",
            **{k: v for k, v in TEXT.items() if k != "intermediate_size"},
            ffn_dim=48,
            word_embed_proj_dim=32,
        ),
        "phi": text("PhiModel", "PhiConfig", **TEXT),
        "qwen2": text("Qwen2Model", "Qwen2Config", **GROUPED),
        "qwen3": text("Qwen3Model", "Qwen3Config", **GROUPED, head_dim=8),
        "roberta": text("RobertaModel", "RobertaConfig", **TEXT),
        "roformer": text("RoFormerModel", "RoFormerConfig", **TEXT),
        "squeezebert": text("SqueezeBertModel", "SqueezeBertConfig", **TEXT, embedding_size=32),
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
    }
)
