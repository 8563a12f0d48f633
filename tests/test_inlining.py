"""Kernels are called by the function that runs them all: as parts of it they took LLVM long."""

import itertools
import re
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx_models import FLOAT, build, node, noise

import hybridc
from hybridc.compiler.building import build as building


def test_kernels_are_not_inlined(monkeypatch: pytest.MonkeyPatch) -> None:
    count = 40
    begun: list[Any] = []
    begin = building.begin

    def watched(*given: Any) -> Any:
        begun.append(begin(*given))
        return begun[-1]

    monkeypatch.setattr(building, "begin", watched)
    names = ["x", *(f"h{i}" for i in range(count - 1)), "y"]
    nodes = [node("Softmax", *pair, axis=i % 2) for i, pair in enumerate(itertools.pairwise(names))]
    proto = build(nodes, [("x", FLOAT, [4, 8])], [("y", FLOAT, [4, 8])])
    session = hybridc.InferenceSession(hybridc.compile(proto, threads=1, verify="off"))
    feed = {"x": noise(4, 8)}
    reference: Any = onnxruntime.InferenceSession(proto.SerializeToString()).run(None, feed)
    np.testing.assert_allclose(session.run(None, feed)[0], reference[0], 1e-4, 1e-6)
    (llvm,) = begun[0].executable.mod.imports
    text = llvm.inspect_source("ll")
    bodies = re.findall(r"define [^\n]*run_by_address_alone.*?\n}\n", text, re.DOTALL)
    assert bodies
    calls = sum(body.count("_part(") for body in bodies)
    assert calls >= count
