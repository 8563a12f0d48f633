"""Models of `gpu.py` in plain torch, with random weights: they need nothing but torch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

Inputs = tuple[torch.Tensor, ...]
_TOKENS, _VOCABULARY, _CACHE = 128, 30522, 512
_OUTPUTS = 50257
# Of small ones.
_FEW, _NARROW = 16, 128


class _Bottleneck(nn.Module):
    """Three convolutions and a shortcut (He et al., Deep Residual Learning, CVPR 2016)."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, width, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, stride, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, 4 * width, 1, bias=False),
            nn.BatchNorm2d(4 * width),
        )
        self.short: nn.Module = nn.Identity()
        if stride != 1 or inputs != 4 * width:
            self.short = nn.Sequential(
                nn.Conv2d(inputs, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.body(x) + self.short(x))


def residual_network(blocks: tuple[int, ...] = (3, 4, 6, 3), width: int = 64) -> nn.Module:
    """ResNet-50."""
    layers: list[nn.Module] = [
        nn.Conv2d(3, width, 7, 2, 3, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, 1),
    ]
    inputs = width
    for stage, count in enumerate(blocks):
        for block in range(count):
            stride = 2 if stage and not block else 1
            layers.append(_Bottleneck(inputs, width * 2**stage, stride))
            inputs = 4 * width * 2**stage
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, 1000)]
    return nn.Sequential(*layers)


class _Layer(nn.Module):
    """Attention and two linear layers; the norms before (`first`), as in ViT, or behind them."""

    def __init__(self, width: int, heads: int, first: bool) -> None:
        super().__init__()
        self.heads, self.first = heads, first
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])

    def _attend(self, x: torch.Tensor) -> torch.Tensor:
        batch, rows, width = x.shape
        shape = (batch, rows, self.heads, width // self.heads)
        parts = [part(x).view(shape).transpose(1, 2) for part in (self.query, self.key, self.value)]
        mixed = nn.functional.scaled_dot_product_attention(*parts)
        return self.out(mixed.transpose(1, 2).reshape(batch, rows, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        one, two = self.norms
        if self.first:
            x = x + self._attend(one(x))
            return x + self.down(nn.functional.gelu(self.up(two(x))))
        x = one(x + self._attend(x))
        return two(x + self.down(nn.functional.gelu(self.up(x))))


class _Encoder(nn.Module):
    """BERT: embedded tokens through layers."""

    def __init__(
        self, layers: int = 12, width: int = 768, tokens: int = _TOKENS, words: int = _VOCABULARY
    ) -> None:
        super().__init__()
        self.words = nn.Embedding(words, width)
        self.places = nn.Parameter(torch.randn(1, tokens, width) * 0.02)
        self.layers = nn.Sequential(*(_Layer(width, width // 64, False) for _ in range(layers)))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.layers(self.words(ids) + self.places)


class _Patches(nn.Module):
    """ViT: patches of 16 by 16 pixels through layers."""

    def __init__(self, layers: int = 12, width: int = 768) -> None:
        super().__init__()
        self.cut = nn.Conv2d(3, width, 16, 16)
        self.layers = nn.Sequential(*(_Layer(width, width // 64, True) for _ in range(layers)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 1000)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.cut(image).flatten(2).transpose(1, 2)
        return self.head(self.norm(self.layers(x)).mean(1))


class _Step(nn.Module):
    """One token through GPT-2: layers that attend to a cache of keys and values."""

    def __init__(self, layers: int = 12, width: int = 768, outputs: int = _OUTPUTS) -> None:
        super().__init__()
        self.layers = nn.ModuleList([_Layer(width, width // 64, True) for _ in range(layers)])
        self.head = nn.Linear(width, outputs, bias=False)

    def forward(self, x: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        layers: Any = self.layers
        for number, layer in enumerate(layers):
            one, two = layer.norms
            inner = one(x)
            shape = (x.shape[0], 1, layer.heads, -1)
            query, key, value = (
                part(inner).view(shape).transpose(1, 2)
                for part in (layer.query, layer.key, layer.value)
            )
            past = torch.cat([keys[number], key], 2), torch.cat([values[number], value], 2)
            mixed = nn.functional.scaled_dot_product_attention(query, *past)
            x = x + layer.out(mixed.transpose(1, 2).reshape(x.shape))
            x = x + layer.down(nn.functional.gelu(layer.up(two(x))))
        return self.head(x)


def _image(batch: int, small: bool) -> Inputs:
    size = 32 if small else 224
    return (torch.randn(batch, 3, size, size),)


def _ids(batch: int, small: bool) -> Inputs:
    return (torch.randint(0, 100, (batch, _FEW if small else _TOKENS)),)


def _cached(batch: int, small: bool) -> Inputs:
    layers, width, cache = (1, _NARROW, _FEW) if small else (12, 768, _CACHE)
    past = [torch.randn(layers, batch, width // 64, cache, 64) for _ in range(2)]
    return (torch.randn(batch, 1, width), *past)


@dataclass(frozen=True)
class Subject:
    """A model, a small one with the same operators, and inputs of a batch for the one or other."""

    build: Callable[[], nn.Module]
    small: Callable[[], nn.Module]
    inputs: Callable[[int, bool], Inputs]


MODELS: Mapping[str, Subject] = MappingProxyType(
    {
        "ResNet-50": Subject(residual_network, partial(residual_network, (1, 1), 16), _image),
        "BERT-base": Subject(_Encoder, partial(_Encoder, 1, _NARROW, _FEW, 100), _ids),
        "ViT-B/16": Subject(_Patches, partial(_Patches, 1, _NARROW), _image),
        "GPT-2 decode step": Subject(_Step, partial(_Step, 1, _NARROW, 100), _cached),
    }
)


def made(name: str, batch: int, small: bool = False) -> tuple[Any, Inputs]:
    """A model ready to be evaluated, and inputs for it."""
    torch.manual_seed(0)
    subject = MODELS[name]
    build = subject.small if small else subject.build
    return build().eval(), subject.inputs(batch, small)
