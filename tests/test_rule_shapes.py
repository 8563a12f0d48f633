"""Rules for all that is no product, over drawn shapes, against ONNX Runtime."""

from typing import Any

import numpy as np
import pytest
from cpus import CPUS
from drawn import drawn
from drawn_models import EXTENTS, POINTS, agree, broadcast, model, noise, shapes
from hypothesis import assume
from hypothesis import strategies as st
from onnx_models import node

ON_EACH_CPU = pytest.mark.parametrize("cpu", CPUS)


@st.composite
def chains(draw: st.DrawFn) -> Any:
    """Two to four broadcast operands, arithmetic between them, and functions of the results."""
    shape = draw(shapes())
    operands = [shape, *(broadcast(draw, shape) for _ in range(draw(st.integers(1, 3))))]
    feed = {f"x{i}": noise(operand) for i, operand in enumerate(operands)}
    nodes, last = [], "x0"
    for name in list(feed)[1:]:
        joined = draw(st.sampled_from(["Add", "Mul", "Sub", "Max", "Min"]))
        applied = draw(
            st.sampled_from(["Relu", "Sigmoid", "Tanh", "Exp", "Erf", "Abs", "Softplus"])
        )
        nodes += [node(joined, f"{last} {name}", f"j{name}"), node(applied, f"j{name}", f"a{name}")]
        last = f"a{name}"
    return [*nodes, node("Identity", last, "y")], feed


@ON_EACH_CPU
@drawn(5, 30, chain=chains(), seed=POINTS)
def test_elementwise(cpu: str, chain: Any, seed: int | None) -> None:
    nodes, feed = chain
    outputs = ["y", "ax1"] if len(feed) > 2 else ["y"]
    agree(model(nodes, feed, outputs=outputs), feed, cpu, seed, "elementwise")


@st.composite
def joined(draw: st.DrawFn) -> Any:
    """Tensors that are concatenated and cut again elsewhere."""
    shape = draw(shapes(elements=5000))
    axis = draw(st.integers(0, len(shape) - 1))
    extents = draw(st.lists(EXTENTS, min_size=1, max_size=3))
    feed = {"x": noise(shape)}
    for i, extent in enumerate(extents):
        feed[f"x{i}"] = noise((*shape[:axis], extent, *shape[axis + 1 :]))
    total = shape[axis] + sum(extents)
    cut = draw(st.integers(1, total - 1))
    nodes = [
        node("Relu", "x", "r"),
        node("Concat", " ".join(["r", *list(feed)[1:]]), "j", axis=axis),
    ]
    nodes += [
        node("Split", "j parts", "a b", axis=axis),
        node("Neg", "a", "y"),
        node("Exp", "b", "z"),
    ]
    return nodes, feed, {"parts": np.array([cut, total - cut], "int64")}


@ON_EACH_CPU
@drawn(5, 30, case=joined(), seed=POINTS)
def test_copies(cpu: str, case: Any, seed: int | None) -> None:
    nodes, feed, constants = case
    agree(model(nodes, feed, constants, ["y", "z"]), feed, cpu, seed)


@ON_EACH_CPU
@drawn(5, 30, data=st.data(), shape=shapes(2, 5), seed=POINTS)
def test_transpose(cpu: str, data: st.DataObject, shape: tuple[int, ...], seed: int | None) -> None:
    order = data.draw(st.permutations(range(len(shape))))
    dtype = data.draw(st.sampled_from(["float32", "float32", "int64", "uint8", "float16"]))
    feed = {"x": noise(shape, dtype)}
    nodes, constants = [node("Transpose", "x", "y", perm=order)], {}
    if dtype == "float32":
        added = data.draw(st.booleans())
        operand = noise(broadcast(data.draw, [shape[axis] for axis in order]))
        nodes = [node("Transpose", "x", "t", perm=order), node("Add", "t b", "y")]
        (feed if added else constants)["b"] = operand
    agree(model(nodes, feed, constants), feed, cpu, seed)


REDUCTIONS = ["Sum", "Mean", "Max", "Min", "Prod", "L1", "L2", "LogSumExp", "SumSquare"]


@ON_EACH_CPU
@drawn(
    8,
    40,
    data=st.data(),
    shape=shapes(),
    kind=st.sampled_from(REDUCTIONS),
    integers=st.booleans(),
    seed=POINTS,
)
def test_reduction(
    cpu: str,
    data: st.DataObject,
    shape: tuple[int, ...],
    kind: str,
    integers: bool,
    seed: int | None,
) -> None:
    places = st.integers(0, len(shape) - 1)
    axes = data.draw(st.lists(places, min_size=1, max_size=4, unique=True))
    integers = integers and kind in ("Sum", "Max", "Min")
    feed = {"x": noise(shape, "int64" if integers else "float32")}
    if kind == "Prod":
        feed["x"] = 1 + feed["x"] / 100
    keep = data.draw(st.booleans())
    nodes = [node(f"Reduce{kind}", "x axes", "r", keepdims=int(keep))]
    nodes.append(node("Sub", "x r", "y") if keep else node("Neg", "r", "y"))
    agree(model(nodes, feed, {"axes": np.array(axes, "int64")}), feed, cpu, seed)


@ON_EACH_CPU
@drawn(
    5, 30, data=st.data(), shape=shapes(), kind=st.sampled_from(["ArgMax", "ArgMin"]), seed=POINTS
)
def test_places_of_extremes(
    cpu: str, data: st.DataObject, shape: tuple[int, ...], kind: str, seed: int | None
) -> None:
    axis, keep = data.draw(st.integers(0, len(shape) - 1)), data.draw(st.booleans())
    feed = {"x": np.round(2 * noise(shape)).astype("int64")}
    agree(model([node(kind, "x", "y", axis=axis, keepdims=int(keep))], feed), feed, cpu, seed)


@ON_EACH_CPU
@drawn(
    5,
    30,
    data=st.data(),
    shape=shapes(),
    kind=st.sampled_from(["Softmax", "LogSoftmax"]),
    seed=POINTS,
)
def test_softmax(
    cpu: str, data: st.DataObject, shape: tuple[int, ...], kind: str, seed: int | None
) -> None:
    axis = data.draw(st.integers(0, len(shape) - 1))
    feed = {"x": 9 * noise(shape), "b": noise(broadcast(data.draw, shape))}
    nodes = [
        node("Add", "x b", "a"),
        node(kind, "a", "s", axis=axis),
        node("Mul", "s b", "y"),
    ]
    agree(model(nodes, feed), feed, cpu, seed)


@ON_EACH_CPU
@drawn(
    5,
    30,
    data=st.data(),
    shape=shapes(),
    kind=st.sampled_from(["LayerNormalization", "rms"]),
    seed=POINTS,
)
def test_norm_of_rows(
    cpu: str, data: st.DataObject, shape: tuple[int, ...], kind: str, seed: int | None
) -> None:
    axis = data.draw(st.integers(0, len(shape) - 1))
    feed = {"x": noise(shape)}
    if kind == "rms":
        nodes = [
            node("ReduceMean", "q axes", "v", keepdims=1),
            node("Add", "v e", "w"),
            node("Sqrt", "w", "s"),
            node("Div", "x s", "n"),
            node("Mul", "n g", "y"),
        ]
        nodes.insert(0, node("Mul", "x x", "q"))
        constants = {"axes": np.array([axis]), "e": np.float32(1e-5), "g": noise(shape[-1:])}
    else:
        # The variance of one element is 0, and that of few may be: then all is rounding.
        assume(np.prod(shape[axis:]) > 2)
        nodes = [node(kind, "x g b", "n", axis=axis), node("Add", "n x", "y")]
        constants = {"g": noise(shape[axis:]), "b": noise(shape[axis:])}
    agree(model(nodes, feed, constants), feed, cpu, seed)


@ON_EACH_CPU
@drawn(
    5,
    30,
    shape=st.tuples(
        st.integers(1, 2), st.sampled_from([4, 6, 16, 32, 48]), st.integers(2, 9), EXTENTS
    ),
    groups=st.sampled_from([0, 1, 2]),
    seed=POINTS,
)
def test_norm_of_images(cpu: str, shape: tuple[int, ...], groups: int, seed: int | None) -> None:
    feed = {"x": noise(shape)}
    attributes: dict[str, Any] = {"num_groups": groups} if groups else {}
    kind = "GroupNormalization" if groups else "InstanceNormalization"
    nodes = [node(kind, "x g b", "n", **attributes), node("Relu", "n", "y")]
    constants = {"g": noise(shape[1:2]), "b": noise((shape[1] + 1,))[1:]}
    agree(model(nodes, feed, constants), feed, cpu, seed)


@st.composite
def pools(draw: st.DrawFn) -> Any:
    """A pooling of any window, behind a 1x1 convolution, which has its channels last."""
    kind = draw(st.sampled_from(["MaxPool", "AveragePool", "LpPool"]))
    axes = draw(st.integers(1, 2))

    def of_axes(low: int, high: int) -> list[int]:
        return list(draw(st.tuples(*[st.integers(low, high)] * axes)))

    size, window = of_axes(1, 15), of_axes(1, 5)
    pads = [draw(st.integers(0, extent - 1)) for extent in window * 2]
    attributes: dict[str, Any] = {"kernel_shape": window, "strides": of_axes(1, 3), "pads": pads}
    attributes |= {"dilations": of_axes(1, 2), "ceil_mode": draw(st.integers(0, 1))}
    if kind == "AveragePool":
        attributes["count_include_pad"] = draw(st.integers(0, 1))
    for i, extent in enumerate(size):
        reach = attributes["dilations"][i] * (window[i] - 1) + 1
        # A window that lies in the padding alone has no maximum.
        assume(extent + pads[i] + pads[axes + i] >= reach)
        assume(max(pads[i], pads[axes + i]) < reach or kind != "MaxPool")
    channels = draw(st.sampled_from([1, 3, 7, 16, 17, 24, 33]))
    feed = {"x": noise((draw(st.integers(1, 2)), channels, *size))}
    weight = noise((draw(st.sampled_from([5, 16, 20])), channels, *[1] * axes))
    nodes = [node("Conv", "x w", "c"), node(kind, "c", "p", **attributes), node("Relu", "p", "y")]
    return nodes, feed, {"w": weight}


@ON_EACH_CPU
@drawn(8, 40, case=pools(), seed=POINTS)
def test_pooling(cpu: str, case: Any, seed: int | None) -> None:
    nodes, feed, constants = case
    agree(model(nodes, feed, constants), feed, cpu, seed)
