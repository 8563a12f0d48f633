"""Rules for products and convolutions over drawn shapes and points, in three precisions."""

from typing import Any

import numpy as np
import pytest
from cpus import CPUS
from drawn import drawn
from drawn_models import EXTENTS, POINTS, agree, compiled, model, noise
from hypothesis import assume
from hypothesis import strategies as st
from onnx_models import node
from test_integer_arithmetic import convolution, run_both

from hybridc.compiler.hardware.host import cpu_features

# A machine whose caches are so small that every weight is too large for them.
TINY = '{{"kind": "llvm", "mcpu": "{}", "caches": [64, 64, 64]}}'
NEEDS_AVX512 = pytest.mark.skipif("avx512f" not in cpu_features(), reason="no AVX-512 here")
ON_EACH_CPU = pytest.mark.parametrize("cpu", CPUS)
DTYPES = st.sampled_from(["fp32", "bf16"])


@st.composite
def convolutions(draw: st.DrawFn, most: int = 13) -> tuple[tuple[int, ...], tuple[int, ...], Any]:
    """Shapes of an image and of a filter, and attributes that fit them."""
    groups = draw(st.sampled_from([1, 1, 2, 3, 4, 8]))
    inputs, outputs = (draw(st.sampled_from([1, 2, 3, 4, 5, 8, 16, 17])) for _ in range(2))
    if draw(st.sampled_from([False, False, True])):
        groups, inputs = draw(st.sampled_from([3, 7, 16, 33, 48])), 1
        outputs = draw(st.sampled_from([1, 1, 1, 2, 3]))
    pairs = st.tuples
    size, window = (draw(pairs(*[st.integers(1, high)] * 2)) for high in (most, 5))
    strides, dilations = (draw(pairs(*[st.integers(1, high)] * 2)) for high in (3, 2))
    pads = draw(pairs(*[st.integers(0, 3)] * 4))
    for axis in (0, 1):
        reach = dilations[axis] * (window[axis] - 1) + 1
        assume(size[axis] + pads[axis] + pads[axis + 2] >= reach)
    attributes = dict(strides=strides, dilations=dilations, pads=pads, group=groups)
    image = (draw(st.integers(1, 2)), inputs * groups, *size)
    return image, (outputs * groups, inputs, *window), attributes


@ON_EACH_CPU
@drawn(8, 40, case=convolutions(), dtype=DTYPES, seed=POINTS)
def test_convolution(cpu: str, case: Any, dtype: str, seed: int | None) -> None:
    image, window, attributes = case
    # Planes are convolved in fp32, so that there is nothing to lower where they are all.
    assume(dtype == "fp32" or image[1] > attributes["group"])
    feed = {"x": noise(image)}
    weights = {"w": noise(window), "b": noise(window[:1])}
    nodes = [node("Conv", "x w b", "c", **attributes), node("HardSwish", "c", "y")]
    agree(model(nodes, feed, weights), feed, cpu, seed, dtype=dtype)


@pytest.mark.parametrize("cpu", [*CPUS, pytest.param("avx512", marks=NEEDS_AVX512)])
@drawn(
    6,
    40,
    case=convolutions(9),
    signed=st.booleans(),
    per_channel=st.booleans(),
    zero=st.sampled_from([0, 3, 250]),
    seed=POINTS,
)
def test_convolution_of_integers(
    cpu: str, case: Any, signed: bool, per_channel: bool, zero: int, seed: int | None
) -> None:
    image, window, attributes = case
    options = dict(signed=signed, per_channel=per_channel, zero=min(zero, 200))
    proto = convolution(image, window, **options, **attributes)
    outcome = run_both(proto, {"x": noise(image)}, 0.3, compiled(proto, cpu, seed))
    assert "int8" in {kernel.precision for kernel in outcome.report.kernels}


@ON_EACH_CPU
@drawn(
    6,
    40,
    data=st.data(),
    groups=st.sampled_from([1, 1, 2, 3]),
    channels=st.tuples(st.integers(1, 9), st.integers(1, 17) | st.sampled_from([16, 24, 32])),
    size=st.lists(st.integers(1, 9), min_size=1, max_size=2),
    seed=POINTS,
)
def test_transposed_convolution(
    cpu: str,
    data: st.DataObject,
    groups: int,
    channels: tuple[int, int],
    size: list[int],
    seed: int | None,
) -> None:
    def of_axes(low: int, high: int, count: int = 1) -> list[int]:
        return list(data.draw(st.tuples(*[st.integers(low, high)] * (count * len(size)))))

    window, strides, dilations, pads = of_axes(1, 5), of_axes(1, 4), of_axes(1, 3), of_axes(0, 2, 2)
    # ONNX Runtime has no more of it than the stride leaves open.
    more = [data.draw(st.integers(0, stride - 1)) for stride in strides]
    for i, extent in enumerate(size):
        full = (extent - 1) * strides[i] + dilations[i] * (window[i] - 1) + 1 + more[i]
        assume(full > pads[i] + pads[len(size) + i])
    attributes = dict(strides=strides, dilations=dilations, pads=pads, output_padding=more)
    feed = {"x": noise((2, channels[0] * groups, *size))}
    weights = {"w": noise((channels[0] * groups, channels[1], *window))}
    weights["b"] = noise((channels[1] * groups,))
    behind = data.draw(st.sampled_from(["Relu", "Tanh", "HardSwish"]))
    nodes = [node("ConvTranspose", "x w b", "c", group=groups, **attributes)]
    agree(model([*nodes, node(behind, "c", "y")], feed, weights), feed, cpu, seed)


@ON_EACH_CPU
@pytest.mark.parametrize(
    ("window", "pads", "more"),
    [(3, [1, 1, 1, 1], 1), (3, [0, 0, 0, 0], 0), (4, [1, 1, 1, 1], 0), (2, [0, 0, 0, 0], 0)],
)
def test_upsampling(cpu: str, window: int, pads: list[int], more: int) -> None:
    """Windows of decoders: a convolution for each phase of the output, and no copies."""
    feed = {"x": noise((1, 16, 6, 5))}
    weights = {"w": noise((16, 16, window, window)), "b": noise((16,)), "v": noise((16, 16, 1, 1))}
    attributes = dict(strides=[2, 2], pads=pads, output_padding=[more] * 2)
    nodes = [
        node("ConvTranspose", "x w b", "c", **attributes),
        node("Relu", "c", "r"),
        node("Conv", "r v", "y"),
    ]
    proto = model(nodes, feed, weights)
    agree(proto, feed, cpu)
    rules = [kernel.rule for kernel in compiled(proto, cpu).report.kernels]
    if window != 3 or more:  # else pixels are left over
        assert "elementwise" not in rules, rules


@ON_EACH_CPU
@drawn(
    8,
    40,
    lead=st.sampled_from([((), ()), ((3,), (3,)), ((2, 1), (3,)), ((1,), (4,)), ((2, 3), ())]),
    sizes=st.tuples(st.sampled_from([1, 1, 2, 3, 4, 9, 17]), EXTENTS, EXTENTS),
    turned=st.tuples(st.booleans(), st.booleans()),
    dtype=DTYPES,
    seed=POINTS,
)
def test_product_of_two_activations(
    cpu: str,
    lead: tuple[tuple[int, ...], tuple[int, ...]],
    sizes: tuple[int, int, int],
    turned: tuple[bool, bool],
    dtype: str,
    seed: int | None,
) -> None:
    rows, depth, columns = sizes
    feed = {"a": noise((*lead[0], rows, depth)), "b": noise((*lead[1], depth, columns))}
    nodes = []
    for (name, array), swap in zip(list(feed.items()), turned, strict=True):
        if swap:
            feed[name] = np.ascontiguousarray(np.swapaxes(array, -1, -2))
            order = [*range(array.ndim - 2), array.ndim - 1, array.ndim - 2]
            nodes.append(node("Transpose", name, f"{name}t", perm=order))
    names = " ".join(f"{name}t" if swap else name for name, swap in zip("ab", turned, strict=True))
    nodes += [node("MatMul", names, "m"), node("Relu", "m", "y")]
    agree(model(nodes, feed), feed, cpu, seed, dtype=dtype)


@ON_EACH_CPU
@pytest.mark.parametrize("rule", ["dense", "skinny-dense", "vector-matrix"])
@drawn(
    4,
    40,
    rows=st.integers(1, 4),
    depth=st.integers(20, 70),
    vectors=st.integers(1, 5),
    dtype=DTYPES,
    seed=POINTS,
)
def test_product_of_few_rows(
    cpu: str, rule: str, rows: int, depth: int, vectors: int, dtype: str, seed: int | None
) -> None:
    columns = 16 * vectors if rule == "vector-matrix" else 16 * vectors + rows
    feed, weights = {"x": noise((rows, depth))}, {"w": noise((depth, columns))}
    if rule == "vector-matrix":
        feed, weights = {**feed, **weights}, {}
        dtype = "fp32"
    elif rule == "skinny-dense":
        widest = cpu == "cpu" and "avx512f" in cpu_features()
        cpu = TINY.format("x86-64-v4" if widest else "x86-64-v3")
    nodes = [node("MatMul", "x w", "m"), node("Gelu", "m", "y")]
    agree(model(nodes, feed, weights), feed, cpu, seed, rule, dtype=dtype)
