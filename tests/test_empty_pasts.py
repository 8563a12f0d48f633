"""Open sizes that may be nothing: those of what a decoder keeps of earlier tokens."""

from typing import Any

import pytest
from onnx import TensorProto, helper

from hybridc.compiler.dims import Dim, Shape
from hybridc.compiler.frontends.onnx_graph.empty_pasts import with_empty_pasts

KEYS: Shape = (Dim("batch"), 4, Dim("past"), 8)


def joined(axis: int) -> Any:
    nodes = [
        helper.make_node("Identity", ["past"], ["same"]),
        helper.make_node("Concat", ["same", "new"], ["y"], axis=axis),
    ]
    kinds = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ("past", "new")]
    return helper.make_graph(nodes, "joined", kinds, [])


@pytest.mark.parametrize("axis", [2, -2])
def test_what_new_tokens_are_put_behind_may_be_nothing(axis: int) -> None:
    found = with_empty_pasts({"past": KEYS, "mask": (Dim("past"),)}, joined(axis))
    assert found == {
        "past": (Dim("batch"), 4, Dim("past", 0), 8),
        "mask": (Dim("past", 0),),
    }


@pytest.mark.parametrize("shape", [(Dim("n"), 4, Dim("p", 2, 8), 8), (Dim("n"), Dim("p"))])
def test_other_sizes_stay_as_they_are(shape: Shape) -> None:
    assert with_empty_pasts({"past": shape}, joined(-2)) == {"past": shape}
    assert with_empty_pasts({"past": KEYS}, joined(0)) == {"past": KEYS}
