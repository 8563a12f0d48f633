"""For how many threads the kernels of a model are scheduled."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import tvm
from test_aot import IMAGES, model, node

import hybridc
from hybridc.compiler import frontend, pipeline, target
from hybridc.compiler.aot import worth
from hybridc.compiler.interfaces import Context
from hybridc.compiler.model import random_feed
from hybridc.compiler.runtime.session import InferenceSession


@pytest.mark.parametrize(
    ("nodes", "shape", "threads"),
    [
        (IMAGES, [1, 16, 8, 8], 1),
        (IMAGES, [1, 16, 64, 64], 2),
        ([node("Softmax", "x", "f", axis=1)], [1, 16, 8, 8], 2),  # no product: each for itself
        # Little of a product beside much of other work.
        ([node("Exp", "x", "a"), node("Conv", "a k", "f", strides=[8, 8])], [1, 16, 99, 99], 2),
    ],
)
def test_products_decide_for_how_many_threads_kernels_are_scheduled(
    nodes: Sequence[Any], shape: list[int], threads: int
) -> None:
    cpu = target.parse("avx2", threads=2)
    context = Context(cpu, pipeline.rules())
    module = frontend.load(model(nodes, {"x": shape}, ["f"])).module
    text = "layout,fold-constants,pack-weights,legalize,fuse"
    made = pipeline.run(pipeline.parse(text), module, context)
    assert worth.expected(made, cpu).threads == threads
    done = pipeline.run(pipeline.parse("schedule"), made, context)
    marked = [worth.ALONE in f.attrs for _, f in done.functions_items() if not relax_function(f)]
    assert all(mark == (threads == 1) for mark in marked)


@pytest.mark.parametrize("shape", [[16], [4, 16], [2, 3, 16]])
def test_products_with_a_vector_count(shape: list[int]) -> None:
    nodes = [node("MatMul", "x v", "a"), node("Exp", "a", "f")]
    artifact = hybridc.compile(model(nodes, {"x": shape, "v": [16]}, ["f"]), threads=2)
    feed = random_feed(artifact.inputs, 1)
    (got,) = InferenceSession(artifact).run(None, feed)
    np.testing.assert_allclose(got, np.exp(feed["x"] @ feed["v"]), rtol=1e-5)


def relax_function(function: Any) -> bool:
    return isinstance(function, tvm.relax.Function)
