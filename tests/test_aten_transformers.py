"""Attention and transformer layers that torch computes by one operator, from it and by Dynamo."""

import warnings
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import hybridc  # noqa: E402 - needs torch
from hybridc.compiler import driver  # noqa: E402
from hybridc.compiler.configuration.plans import Options  # noqa: E402
from hybridc.compiler.dynamo.torch_backend import FallbackWarning  # noqa: E402
from hybridc.compiler.frontends import torch_model  # noqa: E402
from hybridc.compiler.frontends.torch_import import decompositions  # noqa: E402
from hybridc.compiler.runtime.session import InferenceSession  # noqa: E402

aten = torch.ops.aten
nn = torch.nn


def layer(**options: Any) -> Any:
    torch.manual_seed(0)
    return nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, **options).eval()


def masks() -> list[tuple[Any, int | None]]:
    """A mask of each type, and none."""
    keys = torch.zeros(2, 5, dtype=torch.bool)
    keys[0, 3:] = True
    later = torch.ones(5, 5, dtype=torch.bool).triu(1)
    return [
        (None, None),
        (later, 0),
        (keys, 1),
        (keys[:, None, None] | later.expand(2, 4, 5, 5), 2),
    ]


@pytest.mark.parametrize("kind", range(4))
@pytest.mark.parametrize("needed", [False, True])
def test_attention(kind: int, needed: bool) -> None:
    a, x = layer().self_attn, torch.randn(2, 5, 16)
    mask, of = masks()[kind]
    weights = (a.in_proj_weight, a.in_proj_bias, a.out_proj.weight, a.out_proj.bias)
    args = (x, x, x, 16, 4, *weights, mask, needed, kind % 2 == 0, of)
    with torch.no_grad():
        wanted = aten._native_multi_head_attention.default(*args)
    got = decompositions.own()[aten._native_multi_head_attention.default](*args)
    torch.testing.assert_close(got[0], wanted[0])
    if needed:
        torch.testing.assert_close(got[1], wanted[1])


@pytest.mark.parametrize(("activation", "norm_first"), [("relu", False), ("gelu", True)])
def test_encoder_layers_are_compiled(activation: str, norm_first: bool) -> None:
    model = layer(activation=activation, norm_first=norm_first)
    compiled = torch.compile(model, backend=hybridc.torch_backend)
    x = torch.randn(2, 5, 16)
    for mask, kind in masks()[1:3]:
        given = {"src_mask": mask} if kind == 0 else {"src_key_padding_mask": mask}
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("error", FallbackWarning)
            wanted = model(x, **given)
            got = [compiled(x, **given) for _ in range(2)]
        torch.testing.assert_close(got, [wanted, wanted], rtol=1e-3, atol=1e-4)


class Masked(torch.nn.Module):
    """Attention alone."""

    def forward(self, q: Any, k: Any, v: Any, mask: Any) -> Any:
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, mask)


@pytest.mark.parametrize("boolean", [True, False])
@pytest.mark.parametrize("road", ["ONNX", "torch.export"])
def test_rows_that_are_masked_wholly_are_zeros(road: str, boolean: bool) -> None:
    mask = torch.rand(2, 1, 5, 7) > 0.3
    mask[0, 0, 1] = mask[1, 0, 4] = False
    if not boolean:
        mask = torch.where(mask, torch.randn(2, 1, 5, 7), -torch.inf)
    given = (torch.randn(2, 3, 5, 8), torch.randn(2, 3, 7, 8), torch.randn(2, 3, 7, 8), mask)
    model = torch_model.load(Masked(), given, (road,))
    session = InferenceSession(driver.compile_model(model, Options(threads=1)).artifact)
    for spoilt in (False, True):
        given[0][1, 2, 3, 0] = torch.nan if spoilt else 1.0
        feed = dict(zip(["q", "k", "v", "mask"], map(np.asarray, given), strict=True))
        (got,) = session.run(None, feed)
        wanted = Masked()(*given).numpy()
        assert not np.any(wanted[0, :, 1])
        assert bool(np.isnan(wanted).any()) == spoilt
        np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=1e-5)
