"""Hand-written torch networks of the zoo: small, odd in shape, each with its own peculiarity."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from zoo_modules import (
    Bag,
    Branches,
    EinsumAttention,
    Function,
    Lstm,
    Residual,
    SqueezeExcite,
    UNet,
    convolution,
)

Network = Callable[[], tuple[nn.Module, tuple[Any, ...]]]


def image(batch: int = 1, channels: int = 3, height: int = 16, width: int = 16) -> Tensor:
    return torch.randn(batch, channels, height, width)


def dense_block() -> tuple[nn.Module, tuple[Any, ...]]:
    layers = [Branches(nn.Identity(), convolution(8 + 6 * i, 6)) for i in range(3)]
    return nn.Sequential(convolution(3, 8), *layers, nn.AvgPool2d(2), convolution(26, 7, 1)), (
        image(),
    )


def inception() -> tuple[nn.Module, tuple[Any, ...]]:
    tall = nn.Sequential(
        nn.Conv2d(8, 6, (1, 7), padding=(0, 3)), nn.Conv2d(6, 10, (7, 1), padding=(3, 0))
    )
    pooled = nn.Sequential(nn.AvgPool2d(3, 1, 1), convolution(8, 5, 1))
    largest = nn.MaxPool2d(3, 1, 1)
    block = Branches(convolution(8, 4, 1), tall, pooled, largest)
    return nn.Sequential(convolution(3, 8, stride=2), block, convolution(27, 9)), (image(),)


def resnext() -> tuple[nn.Module, tuple[Any, ...]]:
    inner = [convolution(24, 32, 1), convolution(32, 32, groups=8), nn.Conv2d(32, 24, 1)]
    return nn.Sequential(convolution(3, 24), Residual(*inner), nn.MaxPool2d(3, 2, 1)), (image(),)


def shufflenet() -> tuple[nn.Module, tuple[Any, ...]]:
    unit = Residual(
        convolution(24, 24, 1, groups=3),
        nn.ChannelShuffle(3),
        nn.Conv2d(24, 24, 3, padding=1, groups=24),
        nn.Conv2d(24, 24, 1, groups=3),
    )
    return nn.Sequential(convolution(3, 24, stride=2), unit, unit), (image(),)


def squeeze_excite() -> tuple[nn.Module, tuple[Any, ...]]:
    return nn.Sequential(
        convolution(3, 20), SqueezeExcite(20, 5), convolution(20, 20, groups=20), nn.Hardswish()
    ), (image(2, 3, 11, 13),)


def dilated() -> tuple[nn.Module, tuple[Any, ...]]:
    return nn.Sequential(
        convolution(3, 12, dilation=2, padding=2), convolution(12, 12, dilation=3, padding=1)
    ), (image(),)


def odd_channels() -> tuple[nn.Module, tuple[Any, ...]]:
    parts = [convolution(3, 17, stride=2), convolution(17, 23, 1), convolution(23, 23, 5)]
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(23, 11)), (
        image(3, 3, 19, 15),
    )


def conv1d() -> tuple[nn.Module, tuple[Any, ...]]:
    return nn.Sequential(
        nn.Conv1d(5, 12, 9, stride=3, padding=2),
        nn.BatchNorm1d(12),
        nn.GELU(),
        nn.Conv1d(12, 12, 3, padding=2, dilation=2, groups=12),
        nn.Conv1d(12, 7, 1),
        nn.MaxPool1d(2),
    ), (torch.randn(2, 5, 50),)


def conv3d() -> tuple[nn.Module, tuple[Any, ...]]:
    return nn.Sequential(
        nn.Conv3d(2, 6, 3, padding=1), nn.BatchNorm3d(6), nn.ReLU(), nn.MaxPool3d(2), nn.Flatten()
    ), (torch.randn(1, 2, 6, 8, 8),)


def dynamic_kernel() -> tuple[nn.Module, tuple[Any, ...]]:
    function = Function(lambda x, w: functional.relu(functional.conv2d(x, w, padding=1)))
    return function, (image(1, 4, 9, 9), torch.randn(6, 4, 3, 3))


def norms() -> tuple[nn.Module, tuple[Any, ...]]:
    return nn.Sequential(
        nn.Conv2d(3, 12, 3),
        nn.GroupNorm(3, 12),
        nn.SiLU(),
        nn.InstanceNorm2d(12, affine=True),
        nn.LocalResponseNorm(3),
        nn.LayerNorm([12, 10, 10]),
    ), (image(2, 3, 12, 12),)


def pixel_shuffle() -> tuple[nn.Module, tuple[Any, ...]]:
    return nn.Sequential(
        convolution(3, 18), nn.PixelShuffle(3), nn.Conv2d(2, 4, 3), nn.PixelUnshuffle(2)
    ), (image(1, 3, 8, 8),)


def activations() -> tuple[nn.Module, tuple[Any, ...]]:
    kinds = [
        nn.LeakyReLU(0.2), nn.Hardswish(), nn.SiLU(), nn.Mish(), nn.ELU(), nn.SELU(), nn.CELU(),
        nn.Softplus(), nn.Softsign(), nn.GELU("tanh"), nn.ReLU6(), nn.PReLU(6), nn.Hardtanh(),
        nn.Tanhshrink(), nn.LogSigmoid(), nn.Threshold(0.1, 0.2), nn.GLU(1), nn.Softmin(1),
    ]  # fmt: skip
    return nn.Sequential(nn.Conv2d(3, 6, 1), Branches(*kinds)), (image(2, 3, 5, 7),)


def transposed() -> tuple[nn.Module, tuple[Any, ...]]:
    return nn.Sequential(
        nn.ConvTranspose2d(3, 8, 3, stride=2, padding=1, output_padding=1),
        nn.ReLU(),
        nn.ConvTranspose2d(8, 6, 4, stride=2, padding=1, groups=2),
    ), (image(1, 3, 7, 9),)


def resized() -> tuple[nn.Module, tuple[Any, ...]]:
    return Branches(
        nn.Upsample(scale_factor=2.0, mode="nearest"),
        nn.Upsample(size=(10, 14), mode="bilinear", align_corners=True),
        nn.Upsample(size=(10, 14), mode="bicubic"),
        nn.Sequential(nn.ReflectionPad2d((1, 2, 3, 0)), nn.Upsample(size=(10, 14))),
        nn.Sequential(nn.ReplicationPad2d(2), nn.AdaptiveAvgPool2d((10, 14))),
    ), (image(1, 2, 5, 7),)


def integer_outputs() -> tuple[nn.Module, tuple[Any, ...]]:
    def function(x: Tensor, index: Tensor) -> Any:
        values, places = x.topk(3, -1)
        found = x.gather(1, index), x.index_select(0, index[0] % 4), x.argmax(-1), x > 0.5
        return values, places, *found, x.cumsum(1), torch.where(x > 0, x, -x).sum(), x.round().int()

    return Function(function), (torch.randn(4, 9), torch.randint(0, 2, (4, 5)))


def masked() -> tuple[nn.Module, tuple[Any, ...]]:
    def function(x: Tensor, mask: Tensor) -> Any:
        filled = x.masked_fill(~mask, -1e9).softmax(-1)
        any_kept, all_kept = mask.any(-1), mask.all()
        return filled, any_kept, all_kept, x.tril(), (x.abs() ** 0.5).std(0), x.sort(-1).values

    return Function(function), (torch.randn(6, 6), torch.rand(6, 6) > 0.5)


def scalars() -> tuple[nn.Module, tuple[Any, ...]]:
    return Function(lambda x, y: (x * y, x.exp() + 1, (x - y).sum().reshape(()), y > x)), (
        torch.tensor(0.5),
        torch.randn(3),
    )


def integers() -> tuple[nn.Module, tuple[Any, ...]]:
    def function(x: Tensor, y: Tensor) -> Any:
        return x // (y + 2), x % (y + 2), x**2, x * y - 3, x / (y + 1), torch.bitwise_and(x, y)

    return Function(function), (torch.randint(-9, 9, (5, 7)), torch.randint(0, 2, (5, 7)))


def broadcast_after_product() -> tuple[nn.Module, tuple[Any, ...]]:
    weight = torch.randn(16, 5)

    def function(x: Tensor, y: Tensor) -> Any:
        product = x @ weight
        shared = product.relu()
        return shared[:, None] + y, shared.transpose(0, 1), (shared + 1).exp(), product.sum(0)

    return Function(function), (torch.randn(6, 16), torch.randn(6, 4, 5))


def product_chains() -> tuple[nn.Module, tuple[Any, ...]]:
    def function(x: Tensor, y: Tensor) -> Any:
        outer = x[:, :, None] * y[:, None]
        batched = torch.matmul(x, y.transpose(1, 0)).view(2, 3, 6).permute(2, 0, 1)
        both = torch.bmm(outer, outer.transpose(1, 2))
        return batched.contiguous().view(6, 6), both.softmax(-1).permute(1, 0, 2), both[:, 0] @ x[0]

    return Function(function), (torch.randn(6, 5), torch.randn(6, 5))


def lstm() -> tuple[nn.Module, tuple[Any, ...]]:
    return Lstm(), (torch.randn(2, 4, 6),)


def einsum() -> tuple[nn.Module, tuple[Any, ...]]:
    return EinsumAttention(), (torch.randn(2, 9, 24),)


def bag() -> tuple[nn.Module, tuple[Any, ...]]:
    return Bag(), (torch.randint(0, 50, (3, 8)), torch.rand(3, 8) > 0.3)


def unet() -> tuple[nn.Module, tuple[Any, ...]]:
    return UNet(), (image(1, 3, 14, 18),)


def attention() -> tuple[nn.Module, tuple[Any, ...]]:
    layer = nn.TransformerEncoderLayer(24, 3, 40, batch_first=True, norm_first=True)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), (torch.randn(2, 7, 24),)


NETWORKS: tuple[Network, ...] = (
    activations,
    attention,
    bag,
    broadcast_after_product,
    conv1d,
    conv3d,
    dense_block,
    dilated,
    dynamic_kernel,
    einsum,
    inception,
    integer_outputs,
    integers,
    lstm,
    masked,
    norms,
    odd_channels,
    pixel_shuffle,
    product_chains,
    resized,
    resnext,
    scalars,
    shufflenet,
    squeeze_excite,
    transposed,
    unet,
)
