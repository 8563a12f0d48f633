"""The models that the benchmarks time: configurations of `transformers` with random weights.

Random weights cost what trained ones cost.  Biases and norms get values that are not the identity,
which a compiler could drop.  Each model is exported once, as ONNX and as a PyTorch
program, and kept.
"""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import torch
import transformers

from hybridc.compiler import frontend
from hybridc.compiler.errors import InputError, hint
from hybridc.compiler.model import Feed, random_feed

FOLDER = Path(__file__).parent.parent / "build" / "models"
_TOKENS = 128
_CACHE = 512
_IMAGE = (1, 3, 224, 224)


class _Outputs(torch.nn.Module):
    """Takes tensors by position and returns the named outputs as plain tensors."""

    def __init__(self, model: torch.nn.Module, inputs: tuple[str, ...], outputs: tuple[str, ...]):
        super().__init__()
        self.model, self.inputs, self.outputs = model, inputs, outputs

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        result = self.model(**dict(zip(self.inputs, tensors, strict=True)))
        return tuple(getattr(result, name) for name in self.outputs)


def _image(model: torch.nn.Module) -> tuple[_Outputs, tuple[torch.Tensor, ...]]:
    return _Outputs(model, ("pixel_values",), ("logits",)), (torch.randn(_IMAGE),)


def _text(model: torch.nn.Module) -> tuple[_Outputs, tuple[torch.Tensor, ...]]:
    ids = torch.randint(0, 1000, (1, _TOKENS))
    mask = torch.ones(1, _TOKENS, dtype=torch.int64)
    names = ("input_ids", "attention_mask", "token_type_ids")
    wrapped = _Outputs(model, names, ("last_hidden_state", "pooler_output"))
    return wrapped, (ids, mask, torch.zeros_like(ids))


def _labelled(config: Any, **options: Any) -> Any:
    """A configuration for the 1000 classes of ImageNet."""
    return config(num_labels=1000, **options)


class _Step(torch.nn.Module):
    """One token through a decoder: the token and its cache in, logits and the longer cache out."""

    def __init__(self, model: torch.nn.Module, layers: int):
        super().__init__()
        self.model = model
        past = [f"past_{kind}_{i}" for i in range(layers) for kind in ("key", "value")]
        self.inputs = ("input_ids", *past)
        self.outputs = ("logits", *(name.replace("past", "present") for name in past))

    def forward(self, ids: torch.Tensor, *past: torch.Tensor) -> tuple[torch.Tensor, ...]:
        cache = transformers.DynamicCache(list(zip(past[::2], past[1::2], strict=True)))
        result = self.model(input_ids=ids, past_key_values=cache, use_cache=True)
        present = result.past_key_values.layers
        return (result.logits, *(x for layer in present for x in (layer.keys, layer.values)))


def _step(model: torch.nn.Module, batch: int = 1) -> tuple[_Step, tuple[torch.Tensor, ...]]:
    config: Any = model.config
    heads = getattr(config, "num_key_value_heads", config.num_attention_heads)
    shape = (batch, heads, _CACHE, config.hidden_size // config.num_attention_heads)
    wrapped = _Step(model, config.num_hidden_layers)
    past = [torch.randn(shape) for _ in wrapped.inputs[1:]]
    return wrapped, (torch.randint(0, 1000, (batch, 1)), *past)


def _resnet18() -> Any:
    config = _labelled(
        transformers.ResNetConfig,
        hidden_sizes=[64, 128, 256, 512],
        depths=[2, 2, 2, 2],
        layer_type="basic",
    )
    return _image(transformers.ResNetForImageClassification(config))


def _resnet50() -> Any:
    config = _labelled(transformers.ResNetConfig)
    return _image(transformers.ResNetForImageClassification(config))


def _mobilenet() -> Any:
    config = _labelled(transformers.MobileNetV2Config)
    return _image(transformers.MobileNetV2ForImageClassification(config))


def _bert() -> Any:
    return _text(transformers.BertModel(transformers.BertConfig()))


def _bert_tiny() -> Any:
    sizes = {"hidden_size": 64, "intermediate_size": 256, "num_attention_heads": 4}
    config = transformers.BertConfig(num_hidden_layers=2, vocab_size=1024, **sizes)  # pyright: ignore[reportArgumentType]
    return _text(transformers.BertModel(config))


def _vit() -> Any:
    config = _labelled(transformers.ViTConfig)
    return _image(transformers.ViTForImageClassification(config))


def _convnext() -> Any:
    config = _labelled(transformers.ConvNextConfig)
    return _image(transformers.ConvNextForImageClassification(config))


def _gpt2() -> Any:
    return _step(transformers.GPT2LMHeadModel(transformers.GPT2Config()))


MODELS: Mapping[str, Callable[[], Any]] = MappingProxyType(
    {
        "resnet-50": _resnet50,
        "resnet-18": _resnet18,
        "mobilenet-v2": _mobilenet,
        "bert-base": _bert,
        "vit-b16": _vit,
        "convnext-t": _convnext,
        "gpt2-step": _gpt2,
    }
)
# Too small to say anything of speed.
SMALL: Mapping[str, Callable[[], Any]] = MappingProxyType({"bert-tiny": _bert_tiny})


def onnx_file(name: str, batch: int = 1) -> Path:
    """The model as ONNX, exported where it is not there yet."""
    return _exported(name, ".onnx", batch)


def torch_file(name: str, batch: int = 1) -> Path:
    """The model as a PyTorch program, exported where it is not there yet."""
    return _exported(name, ".pt2", batch)


def quantised_file(name: str, batch: int = 1) -> Path:
    """The ONNX model in 8 bits, as ONNX Runtime quantises it, made where it is not there yet.

    Activations are unsigned and weights signed, one scale for each output channel: what the CPUs'
    dot products take.  The ranges come from random inputs, which cost what real ones cost.
    """
    source = onnx_file(name, batch)
    path = source.with_name(f"{source.stem}-int8.onnx")
    if not path.exists():
        from onnxruntime import quantization

        print(f"quantising {source.name}", file=sys.stderr)
        part = path.with_name("part-" + path.name)
        quantization.quantize_static(
            source,
            part,
            cast(Any, _Samples(source)),  # has the one method that its base class asks for
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )
        part.rename(path)
    return path


class _Samples:
    """Random inputs of an ONNX model, as ONNX Runtime's calibration asks for them."""

    def __init__(self, path: Path, count: int = 4) -> None:
        model = frontend.load(path)
        self._feeds = iter([random_feed(model.inputs, seed) for seed in range(count)])

    def get_next(self) -> Feed | None:
        """The next sample, or None after the last."""
        return next(self._feeds, None)


def _exported(name: str, suffix: str, batch: int) -> Path:
    known = {**MODELS, **SMALL}
    if name not in known:
        raise InputError(f"no model is named {name!r}; {hint(name, known)}")
    stem = name if batch == 1 else f"{name}-batch{batch}"
    path = FOLDER / (stem + suffix)
    if not path.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        print(f"exporting {path.name}", file=sys.stderr)
        torch.manual_seed(0)
        model, single = known[name]()
        inputs = tuple(torch.cat([tensor] * batch) for tensor in single)
        model.eval()
        with torch.no_grad():
            _randomise(model)
            _export(model, inputs, path)
    return path


def _randomise(model: torch.nn.Module) -> None:
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5)
        elif name.endswith(("bias", "running_mean")):
            tensor.normal_(0, 0.1)
        elif "norm" in name and name.endswith("weight"):
            tensor.uniform_(0.9, 1.1)


def _export(model: _Outputs | _Step, inputs: tuple[torch.Tensor, ...], path: Path) -> None:
    part = path.with_name("part-" + path.name)
    if path.suffix == ".pt2":
        torch.export.save(torch.export.export(model, inputs), part)
    else:
        torch.onnx.export(
            model,
            inputs,
            part,
            dynamo=True,
            external_data=False,
            input_names=list(model.inputs),
            output_names=list(model.outputs),
            verbose=False,
        )
    part.rename(path)
