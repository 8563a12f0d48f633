"""Indices that a model is given at run time never reach beyond the tensor they index.

What lies inside is checked against ONNX Runtime or torch, which refuse what does not; the answer
to that is numpy's with the indices moved to the nearest element.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onnx_models import FLOAT, INT64, build, check, node, noise

from hybridc.compiler import pipeline, target
from hybridc.compiler.frontend import load
from hybridc.compiler.interfaces import Context
from hybridc.compiler.ir.evaluate import evaluate
from hybridc.compiler.ir.rewrite import calls
from hybridc.compiler.model import Array

OUTSIDE = 10**6


def gather(axis: int, *index: int) -> Any:
    return build(
        [node("Gather", "x i", "y", axis=axis)],
        [("x", FLOAT, [4, 5]), ("i", INT64, list(index))],
        [("y", FLOAT, None)],
    )


def elements() -> Any:
    return build(
        [node("GatherElements", "x i", "y", axis=1)],
        [("x", FLOAT, [4, 5]), ("i", INT64, [4, 3])],
        [("y", FLOAT, None)],
    )


def gather_nd() -> Any:
    return build(
        [node("GatherND", "x i", "y")],
        [("x", FLOAT, [4, 5]), ("i", INT64, [3, 2])],
        [("y", FLOAT, None)],
    )


def scatter() -> Any:
    return build(
        [node("ScatterElements", "x i u", "y", axis=1)],
        [("x", FLOAT, [4, 5]), ("i", INT64, [4, 1])],
        [("y", FLOAT, None)],
        {"u": noise(4, 1)},
    )


def scattered_rows() -> Any:
    """Rows of one index each, as exporters of graph networks write it."""
    return build(
        [node("Expand", "i wide", "e"), node("ScatterElements", "x e u", "y", axis=0)],
        [("x", FLOAT, [4, 5]), ("i", INT64, [2, 1])],
        [("y", FLOAT, None)],
        {"u": noise(2, 5), "wide": np.array([2, 5])},
    )


def scatter_nd() -> Any:
    return build(
        [node("ScatterND", "x i u", "y")],
        [("x", FLOAT, [4, 5]), ("i", INT64, [2, 1])],
        [("y", FLOAT, None)],
        {"u": noise(2, 5)},
    )


MODELS: list[tuple[Callable[[], Any], int]] = [
    (lambda: gather(0, 3), 4),
    (lambda: gather(1, 2, 2), 5),
    (lambda: gather(-1), 5),
    (elements, 5),
    (gather_nd, 4),
    (scatter, 5),
    (scattered_rows, 4),
    (scatter_nd, 4),
]


def indices(model: Any, low: int, high: int) -> dict[str, Array]:
    """A feed with indices in a range, all different along the first axis where there is room."""
    shape = model.inputs[1].shape
    drawn = np.random.default_rng(3).permutation(np.arange(low, high))
    return {"x": noise(4, 5), "i": np.resize(drawn, shape).astype(np.int64)}


@pytest.mark.parametrize(("make", "extent"), MODELS)
def test_negative_indices_count_from_the_end(make: Callable[[], Any], extent: int) -> None:
    model = load(make())
    check(model, indices(model, 0, extent))
    check(model, indices(model, -extent, 0))


@pytest.mark.parametrize(("make", "extent"), MODELS)
@pytest.mark.parametrize("far", [OUTSIDE, -OUTSIDE])
def test_indices_outside_move_to_the_nearest_element(
    make: Callable[[], Any], extent: int, far: int
) -> None:
    model = load(make())
    shape = model.inputs[1].shape
    given = {"x": noise(4, 5), "i": np.full(shape, far, np.int64)}  # pyright: ignore[reportArgumentType, reportCallIssue]
    last = (3, 4) if make is gather_nd else extent - 1
    nearest = {"x": given["x"], "i": np.full(shape, 0 if far < 0 else last, np.int64)}  # pyright: ignore[reportArgumentType, reportCallIssue]
    wanted = model.reference(nearest)
    (got,) = evaluate(model.module, list(given.values()))
    np.testing.assert_array_equal(got, wanted[0])


def test_rows_of_one_index_are_scattered_whole() -> None:
    assert calls(load(scattered_rows()).module, "scatter_nd")
    assert not calls(load(scatter()).module, "scatter_nd")


def test_constant_indices_cost_nothing_at_run_time() -> None:
    model = load(
        build(
            [node("GatherElements", "x i", "y", axis=0)],
            [("x", FLOAT, [4, 5])],
            [("y", FLOAT, None)],
            {"i": np.array([[-1, 0, 3, -4, 2]])},
        )
    )
    check(model)
    cpu = Context(target.parse("cpu", threads=1))
    folded = pipeline.run(pipeline.parse("fold-constants"), model.module, cpu)
    assert "R.maximum" in model.module.script()
    assert "R.maximum" not in folded.script()


def test_embeddings_and_indexing_by_way_of_torch_export() -> None:
    torch = pytest.importorskip("torch")
    from hybridc.compiler.frontends import torch_model

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = torch.nn.Embedding(7, 3)

        def forward(self, ids: Any, rows: Any, columns: Any) -> Any:
            table = self.embed(ids)
            return table, table[rows, columns], table.gather(1, columns[:, None].expand(-1, 3))

    example = (torch.arange(6), torch.arange(4), torch.arange(4) % 3)
    program = torch_model.export(Network(), example)
    model = torch_model._directly(program)  # pyright: ignore[reportPrivateUsage]
    feed = dict(
        zip([spec.name for spec in model.inputs], (t.numpy() for t in example), strict=True)
    )
    check(model, feed)
    outside = [np.full(array.shape, OUTSIDE) for array in feed.values()]
    table = evaluate(model.module, outside)[0]
    np.testing.assert_array_equal(table, np.tile(table[0], (6, 1)))


def test_bounds_of_a_program_s_own_may_lie_outside() -> None:
    torch = pytest.importorskip("torch")
    from hybridc.compiler.frontends import torch_model

    class Network(torch.nn.Module):
        def forward(self, x: Any, index: Any) -> Any:
            least, most = torch.tensor(9), torch.tensor(3)
            return x.gather(1, torch.maximum(torch.minimum(index, most), least))

    program = torch_model.export(Network(), (torch.randn(4, 5), torch.zeros(4, 2).long()))
    model = torch_model._directly(program)  # pyright: ignore[reportPrivateUsage]
    x = noise(4, 5)
    (got,) = evaluate(model.module, [x, np.zeros((4, 2), np.int64)])
    np.testing.assert_array_equal(got, x[:, [4, 4]])


def test_elements_are_scattered_into_a_part_of_the_other_axes() -> None:
    """Of axes before the indexed one and after it; what the indices do not reach stays."""
    data = (5, 4, 3)
    reached = {0: [(2, 4, 2), (2, 3, 3)], 1: [(4, 4, 3), (5, 2, 2)], 2: [(5, 3, 3), (4, 3, 1)]}
    places = [(axis, extents) for axis, several in reached.items() for extents in several]
    nodes, constants = [], {}
    for n, (axis, extents) in enumerate(places):
        along = np.arange(extents[axis])[::-1] - (axis == 0)
        shape = [extents[axis] if a == axis else 1 for a in range(3)]
        constants[f"i{n}"] = np.broadcast_to(along.reshape(shape), extents)
        constants[f"u{n}"] = noise(*extents)
        reduction = {"reduction": "add"} if n % 2 else {}
        nodes.append(node("ScatterElements", f"x i{n} u{n}", f"y{n}", axis=axis, **reduction))
    outputs = [(f"y{n}", FLOAT, None) for n in range(len(places))]
    check(load(build(nodes, [("x", FLOAT, data)], outputs, constants)))
