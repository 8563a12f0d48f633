"""Fourier transforms and complex numbers of torch."""

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from test_aten_converters import agree  # noqa: E402 - needs torch


@pytest.mark.parametrize("name", ["rfft2", "fft2", "ifft2", "ihfft2", "hfft2", "irfft2"])
def test_fourier(name: str) -> None:
    transform = getattr(torch.fft, name)
    agree(
        lambda x: tuple(transform(x, norm=norm) for norm in (None, "ortho", "forward")),
        torch.randn(2, 5, 6),
    )


@pytest.mark.parametrize("n", [1, 2, 7, 600])
def test_fourier_of_any_length(n: int) -> None:
    """Long ones are not held as one matrix; a single number has axes of its own length."""
    x, y = torch.randn(2, 3, n), torch.randn(2, n, dtype=torch.complex64)
    agree(lambda a, b: (torch.fft.fft(a), torch.fft.ifft(b), torch.fft.fft(b, dim=0)), x, y)
    agree(lambda a, b: (torch.fft.rfft(a), torch.fft.irfft(b, n=n + 1)), x, y)


def test_fourier_there_and_back() -> None:
    """Complex numbers within, multiplied by a filter that is complex as well."""
    taps = torch.randn(4, dtype=torch.complex64)
    agree(lambda x: torch.fft.irfft(torch.fft.rfft(x) * taps, n=6), torch.randn(3, 6))


def test_complex_arithmetic() -> None:
    x, y = (torch.randn(3, 4, dtype=torch.complex64) for _ in range(2))
    agree(lambda a, b: (a * b + b.conj(), (a / b).real, a.abs(), (a @ b.mT).angle()), x, y)
    agree(lambda a: (a[1:].reshape(-1) - 2, a.exp(), torch.polar(a.real, a.imag)), x)


def test_complex_numbers_with_others() -> None:
    """Places and other real numbers take part as complex ones; zeros are written into."""
    x = torch.randn(3, 4, dtype=torch.complex64)
    agree(lambda a: (a * torch.arange(4), torch.arange(1, 4)[:, None] / a, a - 2), x)

    def spectrum(a: Any) -> Any:
        made = torch.zeros_like(a)
        made[:, :2] = a[:, 1:3] * 1j
        return made, torch.cumsum(a, 1), torch.full((2,), 1 + 2j)

    agree(spectrum, x)


@pytest.mark.parametrize(
    ("start", "end", "step"), [(None, None, 1), (1, 3, 1), (-2, 99, 1), (0, 5, 2)]
)
def test_slices_are_overwritten(start: int | None, end: int | None, step: int) -> None:
    x = torch.randn(3, 5)
    source = torch.randn(3, 5)[:, slice(start, end, step)].clone()
    agree(lambda a, b: torch.slice_scatter(a, b, 1, start, end, step), x, source)
    agree(lambda a, b: torch.slice_scatter(a, b, 0, 5, 9), x, torch.zeros(0, 5))


def test_complex_functions() -> None:
    x = torch.randn(3, 4, dtype=torch.complex64)
    x[0] = torch.tensor([0, -4, 2j, -1 - 1e-3j])
    agree(lambda a: (a.sqrt(), (a + 5).log(), (a + 5).reciprocal()), x)


def test_the_angle_of_what_is_real() -> None:
    """The first and the last number of a spectrum are real, negative ones of an angle of pi."""
    x = torch.randn(40, 8)
    agree(lambda a: (torch.fft.rfft(a).angle(), torch.fft.rfft(a).imag.signbit()[:, [0, -1]]), x)


def test_rotation_by_complex_numbers() -> None:
    """As language models of old turn their queries."""
    turn = torch.polar(torch.ones(5, 3), torch.randn(5, 3))
    agree(
        lambda x: torch.view_as_real(torch.view_as_complex(x.reshape(2, 5, 3, 2)) * turn).flatten(
            2
        ),
        torch.randn(2, 5, 6),
    )


def test_rotation_by_numbers_that_are_moved() -> None:
    """A tensor that is moved to its own device is left with an assertion about it."""
    angles = torch.randn(2, 5, 3)
    agree(
        lambda x, a: (
            torch.view_as_complex(x) * torch.polar(torch.ones_like(a), a).unsqueeze(1).to(x.device)
        ),
        torch.randn(2, 4, 5, 3, 2),
        angles,
    )
