"""Images sampled by torch's `grid_sample`: linear ones by kernels of ours, others written out."""

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from test_aten_converters import agree_on_all  # noqa: E402 - needs torch


def sampled(mode: str, padding: str, corners: bool) -> Any:
    def function(image: Any, grid: Any) -> Any:
        return torch.nn.functional.grid_sample(image, grid, mode, padding, corners)

    return function


@pytest.mark.parametrize("corners", [True, False])
def test_linear_ones(corners: bool) -> None:
    """Of few channels and of many, with places outside, between them and on the border."""
    cases = []
    for shape, padding in (
        ((3, 2, 5, 7), "zeros"),
        ((2, 1, 6, 1), "border"),
        ((2, 9, 1, 4), "zeros"),
    ):
        grid = torch.randn(shape[0], 4, 5, 2)
        grid[0, 0, :3] = torch.tensor([[1, -1], [0, 1], [-1 - 1e-6, 1 + 1e-6]])
        cases.append((sampled("bilinear", padding, corners), (torch.randn(*shape), grid)))
    agree_on_all(cases)


def test_others_are_written_out() -> None:
    image, grid = torch.randn(2, 3, 5, 6), torch.rand(2, 4, 4, 2) * 1.5 - 0.7
    agree_on_all(
        [
            (sampled("bilinear", "reflection", False), (image, grid)),
            (sampled("nearest", "zeros", True), (image, grid)),
            (sampled("bilinear", "zeros", True), (image.double(), grid.double())),
        ]
    )


def test_places_that_are_no_numbers() -> None:
    """Of them torch makes NaN, or with a border the first pixel or the last."""
    image, grid = torch.randn(1, 1, 4, 4), torch.zeros(1, 1, 3, 2)
    grid[0, 0] = torch.tensor([[float("nan"), 0], [float("inf"), 0], [1e30, -1e30]])
    paddings = ("zeros", "border")
    agree_on_all([(sampled("bilinear", each, True), (image, grid)) for each in paddings])
