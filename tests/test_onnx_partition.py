"""How a graph is cut, and that the cut changes nothing."""

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto
from onnx_models import FLOAT, build, node, noise

from hybridc.compiler import frontend
from hybridc.compiler.frontends import onnx_model
from hybridc.compiler.frontends.onnx_graph import open_axes
from hybridc.compiler.frontends.onnx_graph.liveness import used_names
from hybridc.compiler.frontends.onnx_graph.model_file import read
from hybridc.compiler.frontends.onnx_import.partition import Cut, cut
from hybridc.compiler.frontends.onnx_import.regions import import_with_regions
from hybridc.compiler.frontends.onnx_reference import OnnxReference
from hybridc.compiler.ir.evaluate import evaluate_model
from hybridc.compiler.model import Model, random_feed

# Operators of one and of two tensors of one shape.
ONE = ("Neg", "Relu", "Tanh", "Transpose", "MatMul")
TWO = ("Add", "Mul", "Sub")


def chain(text: str) -> list[Any]:
    """`a>b c>d`: nodes from their inputs to their output; a capital's operator is a Conv."""
    made: list[Any] = []
    for part in text.split():
        given, _, result = part.partition(">")
        operator = "Conv" if result.isupper() else "Relu"
        made.append(node(operator, given.replace(",", " "), result))
    return made


def regions(text: str, foreign: str) -> list[str]:
    """The results of the nodes of each region, where those of `foreign` cannot be ours."""
    nodes = chain(text)
    chosen = {i for i, each in enumerate(nodes) if each.output[0] in foreign}
    found = cut(nodes, chosen, used_names)
    _check(nodes, found, chosen)
    return ["".join(nodes[i].output[0] for i in region) for region in found.regions]


def _check(nodes: list[Any], found: Cut, foreign: set[int]) -> None:
    """Every node once, all after what they read, and none of the foreign ones ours."""
    order: list[int] = []
    for ours, theirs in found.steps:
        assert not foreign & set(ours)
        order += [*ours, *theirs]
    assert sorted(order) == list(range(len(nodes)))
    known = {name for each in nodes for name in each.input}
    known -= {name for each in nodes for name in each.output}
    for ours, theirs in found.steps:
        for index in (*ours, *theirs):
            assert set(nodes[index].input) <= known
            known |= set(nodes[index].output)


@pytest.mark.parametrize(
    ("text", "foreign", "wanted"),
    [
        ("x>a a>b", "", []),
        ("x>a a>b b>c", "b", ["b"]),
        ("x>a a>b x>c", "abc", ["abc"]),
        ("x>a x>b a>c b>d", "cd", ["cd"]),  # side by side: one round trip
        ("x>a a>B B>c", "ac", ["a", "c"]),  # a convolution is worth the trip
        ("x>a a>b b>c", "ac", ["abc"]),  # one cheap operator is not
        ("x>a a>b b>C b>d", "ad", ["abd"]),  # though a convolution reads it too
        ("x>a a>B B>c a,c>d", "ad", ["a", "d"]),  # never around what lies between
        ("x>a a>B a,B>c a>d", "acd", ["ad", "c"]),
        ("x>a a>b b>c c>d d>e e>f f>g g>h h>i i>j j>k", "ak", ["a", "k"]),  # nine are too many
    ],
)
def test_regions_are_few_and_whole(text: str, foreign: str, wanted: list[str]) -> None:
    assert regions(text, foreign) == wanted


GRAPHS = st.lists(
    st.tuples(st.integers(0, 99), st.integers(0, 99), st.booleans(), st.booleans()),
    min_size=1,
    max_size=30,
)


@given(GRAPHS)
@settings(max_examples=200, deadline=None)
def test_every_cut_can_be_computed(drawn: list[tuple[int, int, bool, bool]]) -> None:
    nodes: list[Any] = []
    names = ["x"]
    for index, (left, right, heavy, _) in enumerate(drawn):
        inputs = f"{names[left % len(names)]} {names[right % len(names)]}"
        nodes.append(node("MatMul" if heavy else "Add", inputs, f"n{index}"))
        names.append(f"n{index}")
    foreign = {index for index, (*_, theirs) in enumerate(drawn) if theirs}
    _check(nodes, cut(nodes, foreign, used_names), foreign)


def partitioned(proto: onnx.ModelProto, names: set[str]) -> Model:
    """Import a model whose nodes that compute one of `names` are said to be foreign."""
    file = read(proto)
    bound = open_axes.bind(file, {}, True)
    static = onnx_model.prepare(file, bound)
    made = import_with_regions(
        static,
        file,
        bound,  # pyright: ignore[reportArgumentType]
        lambda each: not names.isdisjoint(each.output),
    )
    outputs = tuple(made.specs[value.name] for value in proto.graph.output)
    inputs = tuple(made.specs[value.name] for value in file.inputs())
    reference = OnnxReference(proto)
    return Model("drawn", made.module, inputs, outputs, reference, regions=made.regions)


@given(GRAPHS.filter(lambda drawn: len(drawn) > 3))
@settings(max_examples=12, deadline=None, derandomize=True)
def test_whatever_is_foreign_the_answer_is_the_same(
    drawn: list[tuple[int, int, bool, bool]],
) -> None:
    nodes: list[Any] = []
    names = ["x", "z"]
    for index, (left, right, two, _) in enumerate(drawn):
        first, second = names[left % len(names)], names[right % len(names)]
        operator = (TWO if two else ONE)[right % (3 if two else 5)]
        inputs = f"{first} {second}" if two else first
        inputs += " w" if operator == "MatMul" else ""
        nodes.append(node(operator, inputs, f"n{index}"))
        names.append(f"n{index}")
    foreign = {f"n{index}" for index, (*_, theirs) in enumerate(drawn) if theirs}
    proto = build(
        nodes,
        [("x", FLOAT, [4, 4]), ("z", FLOAT, [4, 4])],
        [(name, FLOAT, None) for name in dict.fromkeys([names[-1], names[-2], names[2]])],
        {"w": noise(4, 4) / 4},
    )
    model = partitioned(proto, foreign)
    assert bool(model.regions) == bool(foreign)
    feed = random_feed(model.inputs)
    got = evaluate_model(model, model.module, feed)
    for value, right in zip(got, model.reference(feed), strict=True):
        np.testing.assert_allclose(value, right, rtol=1e-3, atol=1e-3 * abs(right).max())


def test_weights_of_a_region_are_no_parameters_of_ours() -> None:
    """A weight that only a region reads is not among the constants of `main`."""
    proto = build(
        [node("MatMul", "x a", "m"), node("MatMul", "m b", "y")],
        [("x", FLOAT, [2, 200])],
        [("y", FLOAT, None)],
        {"a": noise(200, 200), "b": noise(200, 200)},
    )
    model = partitioned(proto, {"m"})
    (region,) = model.regions
    assert list(region.weights) == ["a"]
    assert len(region.proto) < 1000
    assert str(model.module["main"]).count("GenericConst") == 1


@pytest.mark.parametrize(
    "kind", ["FLOAT16", "BFLOAT16", "DOUBLE", "INT8", "UINT8", "INT32", "INT64", "BOOL"]
)
def test_types_cross_the_border(kind: str) -> None:
    """As bytes, both ways."""
    number = getattr(TensorProto, kind)
    proto = build(
        [node("Identity", "x", "m"), node("Transpose", "m", "y")],
        [("x", number, [2, 3])],
        [("y", number, None)],
    )
    model = partitioned(proto, {"m"})
    assert len(model.regions) == 1
    feed = random_feed(model.inputs)
    (got,) = evaluate_model(model, model.module, feed)
    np.testing.assert_array_equal(got, feed["x"].T)


def test_what_onnx_infers_wrongly_is_compiled_all_the_same() -> None:
    """ONNX counts windows that begin behind the image; ONNX Runtime and we do not."""
    pool = node("MaxPool", "x", "p", kernel_shape=[1], strides=[2], ceil_mode=1)
    model = build([pool, node("Relu", "p", "y")], [("x", FLOAT, [1, 2, 6])], [("y", FLOAT, None)])
    loaded = frontend.load(model, fallback=True)
    assert loaded.regions == ()
    assert loaded.outputs[0].shape == (1, 2, 3)
