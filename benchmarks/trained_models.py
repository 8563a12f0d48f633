"""Six small networks of different kinds, trained for seconds on made-up data that they can learn.

Weights that were trained have outliers, dead channels and margins that random ones lack.  Nothing
is tuned to these: they tell how contracts fare on models that nobody has looked at.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

_STEPS, _BATCH, _RATE = 120, 32, 2e-3
_CLASSES, _WORDS, _LENGTH = 10, 64, 32


def images(draw: torch.Generator, count: int) -> tuple[Tensor, Tensor]:
    """Waves of one of ten directions and pitches, under noise."""
    label = torch.randint(0, _CLASSES, (count,), generator=draw)
    place = torch.linspace(-1, 1, 32)
    down, across = torch.meshgrid(place, place, indexing="ij")
    angle = label * torch.pi / _CLASSES
    along = torch.cos(angle)[:, None, None] * across + torch.sin(angle)[:, None, None] * down
    wave = torch.sin((4 + label)[:, None, None] * along)
    colours = torch.rand(count, 3, 1, 1, generator=draw) + 0.5
    noise = 0.3 * torch.randn(count, 3, 32, 32, generator=draw)
    return wave[:, None] * colours + noise, label


def masks(draw: torch.Generator, count: int) -> tuple[Tensor, Tensor]:
    """The same images, and where each is bright."""
    image, _ = images(draw, count)
    return image, (image.mean(1) > 0.2).long()


def words(draw: torch.Generator, count: int) -> tuple[Tensor, Tensor]:
    """Sequences of words, and for each whether it was there before."""
    text = torch.randint(0, _WORDS, (count, _LENGTH), generator=draw)
    before = torch.stack([(text[:, :i] == text[:, i : i + 1]).any(1) for i in range(_LENGTH)], 1)
    return text, before.long()


def sums(draw: torch.Generator, count: int) -> tuple[Tensor, Tensor]:
    """Sequences in which a word is the sum of the two before; the next one is wanted."""
    text = torch.randint(0, _WORDS, (count, _LENGTH + 1), generator=draw)
    for place in range(2, _LENGTH + 1):
        text[:, place] = (text[:, place - 1] + text[:, place - 2]) % _WORDS
    return text[:, :-1], text[:, 1:]


def small_cnn() -> nn.Module:
    """Convolutions with batch norms, a residual and a depthwise one."""

    def block(read: int, write: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
        conv = nn.Conv2d(read, write, 3, stride, 1, groups=groups, bias=False)
        return nn.Sequential(conv, nn.BatchNorm2d(write), nn.ReLU())

    return nn.Sequential(
        *(block(3, 32), block(32, 64, 2), _Residual(block(64, 64)), block(64, 64, 1, 64)),
        *(block(64, 128, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, _CLASSES)),
    )


class _Residual(nn.Module):
    """What is inside, added to what it reads."""

    def __init__(self, inside: nn.Module) -> None:
        super().__init__()
        self.inside = inside

    def forward(self, x: Tensor) -> Tensor:
        """Both together."""
        return x + self.inside(x)


class _Swap(nn.Module):
    """What is inside, across the other axis."""

    def __init__(self, inside: nn.Module) -> None:
        super().__init__()
        self.inside = inside

    def forward(self, x: Tensor) -> Tensor:
        """Rows for columns, there and back."""
        return self.inside(x.transpose(1, 2)).transpose(1, 2)


class _Patches(nn.Module):
    """An image as a sequence of patches of 4 by 4."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(3, width, 4, 4)

    def forward(self, x: Tensor) -> Tensor:
        """`[n, 64, width]`."""
        return self.project(x).flatten(2).transpose(1, 2)


class _Mean(nn.Module):
    """The mean over a sequence."""

    def forward(self, x: Tensor) -> Tensor:
        """`[n, width]`."""
        return x.mean(1)


def mlp_mixer(width: int = 128, places: int = 64) -> nn.Module:
    """Products across patches and across features in turn."""

    def mixed(size: int) -> nn.Sequential:
        return nn.Sequential(nn.Linear(size, 2 * size), nn.GELU(), nn.Linear(2 * size, size))

    layers = [
        _Residual(nn.Sequential(nn.LayerNorm(width), inside))
        for _ in range(3)
        for inside in (_Swap(mixed(places)), mixed(width))
    ]
    head = [nn.LayerNorm(width), _Mean(), nn.Linear(width, _CLASSES)]
    return nn.Sequential(_Patches(width), *layers, *head)


class LstmTagger(nn.Module):
    """A tag for each word of a sequence, from both sides."""

    def __init__(self, width: int = 96) -> None:
        super().__init__()
        self.embed = nn.Embedding(_WORDS, width)
        self.lstm = nn.LSTM(width, width, batch_first=True, bidirectional=True)
        self.head = nn.Linear(2 * width, 2)

    def forward(self, text: Tensor) -> Tensor:
        """Scores of the two tags."""
        return self.head(self.lstm(self.embed(text))[0]).transpose(1, 2)


class _Attention(nn.Module):
    """Attention of several heads, each place to itself and those before if `causal`."""

    def __init__(self, width: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.read, self.write = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """`[n, places, width]`."""
        n, places, width = x.shape
        split = self.read(x).reshape(n, places, 3, self.heads, width // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=self.causal)
        return self.write(mixed.transpose(1, 2).reshape(n, places, width))


def _layer(width: int, causal: bool) -> nn.Sequential:
    inside = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
    return nn.Sequential(
        _Residual(nn.Sequential(nn.LayerNorm(width), _Attention(width, 4, causal))),
        _Residual(nn.Sequential(nn.LayerNorm(width), inside)),
    )


class _Places(nn.Module):
    """A sequence with what each place is told by added."""

    def __init__(self, places: int, width: int) -> None:
        super().__init__()
        self.told = nn.Parameter(0.1 * torch.randn(1, places, width))

    def forward(self, x: Tensor) -> Tensor:
        """`[n, places, width]`."""
        return x + self.told


def small_vit(width: int = 128) -> nn.Module:
    """A vision transformer of three layers."""
    layers = [_layer(width, causal=False) for _ in range(3)]
    head = [nn.LayerNorm(width), _Mean(), nn.Linear(width, _CLASSES)]
    return nn.Sequential(_Patches(width), _Places(64, width), *layers, *head)


class GptDecoder(nn.Module):
    """A language model of three layers, with its embedding as its head."""

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        self.embed, self.places = nn.Embedding(_WORDS, width), _Places(_LENGTH, width)
        self.layers = nn.Sequential(*(_layer(width, causal=True) for _ in range(3)))
        self.norm = nn.LayerNorm(width)

    def forward(self, text: Tensor) -> Tensor:
        """Scores of the next word."""
        x = self.norm(self.layers(self.places(self.embed(text))))
        return (x @ self.embed.weight.T).transpose(1, 2)


class Unet(nn.Module):
    """Down and up again by two steps, with what was there beside."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()

        def twice(read: int, write: int) -> nn.Sequential:
            first, second = nn.Conv2d(read, write, 3, 1, 1), nn.Conv2d(write, write, 3, 1, 1)
            return nn.Sequential(first, nn.ReLU(), second, nn.ReLU())

        self.down = nn.ModuleList([twice(3, width), twice(width, 2 * width)])
        self.middle = twice(2 * width, 4 * width)
        self.grow = nn.ModuleList(
            [
                nn.ConvTranspose2d(4 * width, 2 * width, 2, 2),
                nn.ConvTranspose2d(2 * width, width, 2, 2),
            ]
        )
        self.up = nn.ModuleList([twice(4 * width, 2 * width), twice(2 * width, width)])
        self.head = nn.Conv2d(width, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Scores of dark and bright."""
        kept = []
        for step in self.down:
            x = step(x)
            kept.append(x)
            x = nn.functional.max_pool2d(x, 2)
        x = self.middle(x)
        for grow, step in zip(self.grow, self.up, strict=True):
            x = step(torch.cat([grow(x), kept.pop()], 1))
        return self.head(x)


Draw = Callable[[torch.Generator, int], tuple[Tensor, Tensor]]
NETWORKS: Mapping[str, tuple[Callable[[], nn.Module], Draw]] = MappingProxyType(
    {
        "small-cnn": (small_cnn, images),
        "mlp-mixer": (mlp_mixer, images),
        "lstm-tagger": (LstmTagger, words),
        "small-vit": (small_vit, images),
        "gpt-decoder": (GptDecoder, sums),
        "unet": (Unet, masks),
    }
)


def trained(name: str) -> nn.Module:
    """A network by name, after some steps of training; the same each time."""
    make, data = NETWORKS[name]
    draw = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    torch.set_num_threads(1)  # beside other programs threads that wait for each other take minutes
    network = make()
    optimiser = torch.optim.AdamW(network.parameters(), _RATE)
    for _ in range(_STEPS):
        inputs, classes = data(draw, _BATCH)
        loss = nn.functional.cross_entropy(network(inputs), classes)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return network.eval()


def samples(name: str, seed: int, count: int) -> list[dict[str, NDArray[Any]]]:
    """Samples of the kind that a network was trained on."""
    inputs, _ = NETWORKS[name][1](torch.Generator().manual_seed(1 + seed), count)
    return [{"x": each[np.newaxis]} for each in inputs.numpy()]


def export(name: str, path: Path) -> None:
    """Train, and write as ONNX of batch 1."""
    example = torch.from_numpy(samples(name, 0, 1)[0]["x"])
    torch.onnx.export(
        trained(name), (example,), str(path), input_names=["x"], dynamo=True, external_data=False
    )
