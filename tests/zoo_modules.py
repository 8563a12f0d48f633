"""Building blocks of the zoo's hand-written networks."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class Function(nn.Module):
    """A plain function as a module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(*inputs)


class Branches(nn.Module):
    """The outputs of several modules on one input, joined over the channels."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


class Residual(nn.Module):
    """A module's output added to its input."""

    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        self.inner = nn.Sequential(*parts)

    def forward(self, x: Tensor) -> Any:
        return functional.relu(x + self.inner(x))


class SqueezeExcite(nn.Module):
    """Channels scaled by what their means say."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, inner, 1),
            nn.ReLU(),
            nn.Conv2d(inner, channels, 1),
            nn.Hardsigmoid(),
        )

    def forward(self, x: Tensor) -> Any:
        return x * self.gate(x)


class UNet(nn.Module):
    """One level down and up again, by a transposed convolution and by resizing."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = convolution(3, 8)
        self.down = nn.Sequential(nn.MaxPool2d(2), convolution(8, 12))
        self.up = nn.ConvTranspose2d(12, 8, 2, stride=2)
        self.merge = convolution(28, 5, 1)

    def forward(self, x: Tensor) -> Any:
        skip = self.enter(x)
        low = self.down(skip)
        size = skip.shape[-2:]
        wide = functional.interpolate(low, size=size, mode="bilinear", align_corners=False)
        return self.merge(torch.cat([skip, self.up(low), wide], 1))


class EinsumAttention(nn.Module):
    """Attention spelled with einsum."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(24, 72)

    def forward(self, x: Tensor) -> Any:
        q, k, v = self.project(x).view(2, 9, 3, 4, 6).unbind(2)
        scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / 6**0.5
        return torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), v).reshape(2, 9, 24)


class Lstm(nn.Module):
    """A recurrent network and a classifier of its last state."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrent = nn.LSTM(6, 10, batch_first=True)
        self.head = nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Any:
        states, _ = self.recurrent(x)
        return self.head(states[:, -1])


class Bag(nn.Module):
    """The mean of the embeddings that a mask keeps."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 16)
        self.head = nn.Linear(16, 4)

    def forward(self, ids: Tensor, mask: Tensor) -> Any:
        kept = mask.unsqueeze(-1).float()
        mean = (self.embed(ids) * kept).sum(1) / kept.sum(1).clamp(min=1)
        return self.head(mean)


def convolution(inputs: int, outputs: int, size: int = 3, **options: Any) -> nn.Sequential:
    """Convolution, batch norm with statistics of its own, relu."""
    norm = nn.BatchNorm2d(outputs)
    nn.init.normal_(norm.running_mean)  # pyright: ignore[reportArgumentType]
    nn.init.uniform_(norm.running_var, 0.5, 2.0)  # pyright: ignore[reportArgumentType]
    padding = options.pop("padding", size // 2)
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, padding=padding, bias=False, **options), norm, nn.ReLU()
    )
