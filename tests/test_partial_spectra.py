"""Fourier transforms of which few bins are read, or whose operand is zero for the most."""

from math import prod
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import tvm  # noqa: E402 - torch goes first
from test_aten_converters import agree, imported  # noqa: E402
from tvm import relax  # noqa: E402

fft = torch.fft


def operator(x: Any) -> Any:
    """As in a neural operator: two corners of a spectrum are kept, each multiplied by a matrix."""
    spectrum, (batch, channels, height, width) = fft.rfft2(x), x.shape
    kept = torch.zeros(batch, channels, height, width // 2 + 1, dtype=torch.cfloat)
    kept[:, :, :2, :3] = spectrum[:, :, :2, :3] * (1 + 2j)
    kept[:, :, -2:, :3] = spectrum[:, :, -2:, :3] * 3j
    return fft.irfft2(kept, s=(height, width))


def long_convolution(x: Any) -> Any:
    length = x.shape[-1]
    taps = torch.linspace(1, 2, length)
    product = fft.rfft(x, n=2 * length) * fft.rfft(taps, n=2 * length)
    return fft.irfft(product, n=2 * length)[..., :length]


def steps(x: Any) -> Any:
    """Every other bin, the same bins twice, and slices of slices."""
    spectrum = fft.fft(x, dim=0)
    return spectrum[1:7:2], spectrum[3:5][:, 1], spectrum[2:6][1:3]


def written_over(x: Any) -> Any:
    """Later slices over earlier ones; one is of a slice."""
    spectrum = torch.zeros(9, 12, dtype=torch.cfloat)
    spectrum[2:5, 3:9] = fft.fft2(x)[1:4, :6]
    spectrum[4:6][:, 8:12:2] = 1 + 1j
    spectrum[:, 11] = 2
    return fft.ifft2(spectrum)[::3, 1:4], fft.irfft(spectrum, n=13, dim=0)[2:5]


def beyond_half(x: Any) -> Any:
    """Bins that a signal of real numbers of this length has no use for."""
    spectrum = torch.zeros(2, 8, dtype=torch.cfloat)
    spectrum[:, 1:7] = fft.fft(x[:2, :6])
    return fft.irfft(spectrum, n=5)


def padded_on_both_sides(x: Any) -> Any:
    wide = torch.nn.functional.pad(x, (3, 2, 1, 0))
    return fft.rfft2(wide)[:, :2], fft.fft(wide, dim=0)[-3:]


def nothing_is_left_out(x: Any) -> Any:
    spectrum = fft.rfft(x)
    return spectrum, spectrum[:, :2]


FUNCTIONS = {
    "long_convolution": (long_convolution, (3, 5)),
    "steps": (steps, (9, 4)),
    "written_over": (written_over, (8, 10)),
    "beyond_half": (beyond_half, (8, 10)),
    "padded_on_both_sides": (padded_on_both_sides, (8, 10)),
    "nothing_is_left_out": (nothing_is_left_out, (3, 8)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_parts_of_spectra(name: str) -> None:
    function, shape = FUNCTIONS[name]
    agree(function, torch.randn(*shape))


def long_ones(x: Any) -> Any:
    """Axes that are taken apart into factors: zeros behind, the first numbers wanted, others."""
    spectrum = fft.rfft(x, dim=0)
    back = fft.irfft(spectrum, n=300, dim=0)
    wide = torch.nn.functional.pad(x, (0, 0, 0, 260))
    return back[:70], back[3:200:2], fft.fft(wide, dim=0)[:77], fft.irfft(spectrum[:90], 512, 0)


def test_long_transforms() -> None:
    agree(long_ones, torch.randn(252, 2))


@pytest.mark.parametrize("shape", [(2, 3, 10, 9), (1, 2, 66, 64)])
def test_neural_operators(shape: tuple[int, ...]) -> None:
    """Long axes would be taken apart into factors if all their bins were wanted."""
    agree(operator, torch.randn(*shape))


def numbers(function: Any, *inputs: Any) -> int:
    """How many numbers the matrices of a program have."""
    sizes: list[int] = []

    def visit(expr: Any) -> None:
        value: Any = getattr(expr, "value", None)
        if isinstance(value, tvm.runtime.Tensor):  # of a constant
            sizes.append(prod(map(int, value.shape)))

    relax.analysis.post_order_visit(imported(function, *inputs).module["main"], visit)
    return sum(sizes)


def test_what_is_not_read_is_not_computed() -> None:
    x = torch.randn(40, 6)
    whole, few = (numbers(lambda a, n=n: fft.rfft(a, dim=0)[:n], x) for n in (21, 3))
    assert few * 7 == whole == 40 * 2 * 21
    zeros = numbers(lambda a: fft.rfft(torch.nn.functional.pad(a, (0, 0, 0, 40)), dim=0), x)
    assert zeros == 40 * 2 * 41
