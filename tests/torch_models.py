"""A small torch network for tests of the roads from torch."""

from typing import Any

import pytest

torch = pytest.importorskip("torch")

IMAGE = (1, 3, 8, 8)


def network() -> Any:
    """A classifier of an IMAGE, with layers that behave otherwise in training."""
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3, padding=1),
        torch.nn.BatchNorm2d(4),
        torch.nn.ReLU(),
        torch.nn.Dropout(0.9),
        torch.nn.Flatten(),
        torch.nn.Linear(4 * 8 * 8, 5),
    )
