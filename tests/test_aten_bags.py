"""Bags of embeddings give what torch gives: empty ones, padding, weights, and rows as bags."""

import itertools
from typing import Any

import pytest
from onnx_models import check

torch = pytest.importorskip("torch")

from hybridc.compiler.frontends import torch_model  # noqa: E402 - needs torch
from hybridc.compiler.frontends.aten import bags  # noqa: E402
from hybridc.compiler.frontends.torch_import import decompositions  # noqa: E402

MODES = ("sum", "mean", "max")
TABLE = torch.randn(7, 3, generator=torch.Generator().manual_seed(5))
INDICES = torch.tensor([0, 6, 2, 2, 2, 5, 1, 0, 2])
OFFSETS = torch.tensor([0, 0, 3, 5, 5, 9])  # the last begins behind all of them


@pytest.mark.parametrize("padding", [-1, 2])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("kind", [torch.int64, torch.int32])
def test_bags_by_offsets(kind: Any, last: bool, mode: str, padding: int) -> None:
    weights = torch.rand(9, generator=torch.Generator().manual_seed(6)) if mode == "sum" else None
    given = (TABLE, INDICES.to(kind), OFFSETS.to(kind), False, MODES.index(mode), False, weights)
    ours = decompositions.own()[torch.ops.aten._embedding_bag.default]
    got = ours(*given, last, padding)
    wanted = torch.ops.aten._embedding_bag.default(*given, last, padding)
    torch.testing.assert_close(got[0], wanted[0])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("padding", [None, 2, -5])
def test_rows_as_bags(padding: int | None, mode: str) -> None:
    rows = torch.tensor([[0, 2, 5], [2, 2, 2], [6, 6, 1]])
    for weights in (None, torch.rand(3, 3)) if mode == "sum" else (None,):
        given: dict[str, Any] = {
            "mode": mode,
            "padding_idx": padding,
            "per_sample_weights": weights,
        }
        wanted = torch.nn.functional.embedding_bag(rows, TABLE, **given)
        torch.testing.assert_close(bags.bags_of_one_size(rows, TABLE, **given), wanted)


@pytest.mark.parametrize(
    ("mode", "road"), itertools.product(("mean", "max"), ("ONNX", "torch.export"))
)
def test_a_layer(mode: str, road: str) -> None:
    layer = torch.nn.EmbeddingBag(7, 3, mode=mode, padding_idx=2)
    offsets = torch.tensor([0, 0, 3, 5, 5, 8])
    model = torch_model.load(layer, (INDICES, offsets), [road])
    feed = dict(zip((s.name for s in model.inputs), (INDICES, offsets), strict=True))
    check(model, {name: x.numpy() for name, x in feed.items()})
