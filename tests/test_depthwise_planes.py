"""Depthwise convolutions channels first, over drawn windows, against torch."""

from typing import Any

import numpy as np
import pytest
import torch
import tvm
from drawn import drawn
from hypothesis import strategies as st
from tvm import relax

from hybridc.compiler import pipeline, plugin, target
from hybridc.compiler.interfaces import Context, IRModule
from hybridc.compiler.ir.evaluate import evaluate
from hybridc.compiler.kernels.convolutions import depthwise_planes
from hybridc.compiler.kernels.products import contractions
from hybridc.compiler.model import Array

STEPS = "depthwise-planes,layout,pack-weights,legalize,fuse,schedule,start-at-infinity"
op: Any = relax.op


@st.composite
def windows(draw: Any) -> dict[str, Any]:
    """An image, and a window that lies in it with its padding."""
    size = [draw(st.sampled_from([1, 2, 5, 7, 8, 9, 13, 16, 31, 40])) for _ in range(2)]
    window = [draw(st.sampled_from([1, 2, 3, 3, 5, 7])) for _ in range(2)]
    dilation = [draw(st.sampled_from([1, 1, 2, 3])) for _ in range(2)]
    padding = [draw(st.integers(0, 4)) for _ in range(4)]
    strides = [draw(st.sampled_from([1, 1, 2, 2, 3, 5])) for _ in range(2)]
    for i in range(2):
        if size[i] + padding[i] + padding[i + 2] < dilation[i] * (window[i] - 1) + 1:
            size[i] += dilation[i] * window[i]
    return {
        "size": size,
        "window": window,
        "dilation": dilation,
        "padding": padding,
        "strides": strides,
        "channels": draw(st.sampled_from([2, 3, 8, 17])),
        "results": draw(st.sampled_from([1, 1, 2, 3])),
    }


def module_of(x: Array, w: Array, drawn: dict[str, Any], more: Any = None) -> IRModule:
    """A convolution, and what `more` makes of it and its input."""
    builder = relax.BlockBuilder()
    data = relax.Var("x", relax.TensorType(x.shape, "float32"))
    with builder.function("main", [data]):
        with builder.dataflow():
            convolved = builder.emit(
                op.nn.conv2d(
                    data,
                    relax.const(w),
                    strides=drawn["strides"],
                    padding=drawn["padding"],
                    dilation=drawn["dilation"],
                    groups=x.shape[1],
                )
            )
            y = builder.emit_output(builder.normalize(more(convolved, data) if more else convolved))
        builder.emit_func_output(y)
    return builder.finalize()


def ran(module: IRModule, x: Array, cpu: str = "cpu") -> tuple[Array, set[str]]:
    """The result, and the rules that took the kernels."""
    context = Context(target.parse(cpu, threads=2), pipeline.rules())
    made = pipeline.run(pipeline.parse(STEPS), module, context)
    assert not context.notes, context.notes
    return evaluate(made, [x])[0], {kernel.rule for kernel in context.kernels}


def wanted_of(x: Array, w: Array, drawn: dict[str, Any]) -> Any:
    """By torch, in float64."""
    top, left, bottom, right = drawn["padding"]
    padded = torch.nn.functional.pad(torch.from_numpy(x).double(), (left, right, top, bottom))
    return torch.nn.functional.conv2d(
        padded,
        torch.from_numpy(w).double(),
        stride=drawn["strides"],
        dilation=drawn["dilation"],
        groups=x.shape[1],
    )


@drawn(8, 40, drawn=windows())
def test_sums_are_those_of_torch(drawn: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, drawn["channels"], *drawn["size"])).astype("float32")
    results = drawn["channels"] * drawn["results"]
    w = rng.standard_normal((results, 1, *drawn["window"])).astype("float32")
    y, rules = ran(module_of(x, w, drawn), x)
    assert rules == {"depthwise-planes"}
    np.testing.assert_allclose(y, wanted_of(x, w, drawn).numpy(), atol=2e-5)


PLAIN: dict[str, Any] = {"strides": [1, 1], "padding": [1] * 4, "dilation": [1, 1]}


@pytest.mark.parametrize("size", [7, 14, 33, 160])
def test_what_is_elementwise_behind_joins(size: int) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 6, size, size)).astype("float32")
    w = rng.standard_normal((6, 1, 3, 3)).astype("float32")
    b = rng.standard_normal((6, 1, 1)).astype("float32")

    def more(y: Any, data: Any) -> Any:
        return op.add(op.nn.relu(op.add(y, relax.const(b))), data)

    y, rules = ran(module_of(x, w, PLAIN, more), x)
    assert rules == {"depthwise-planes"}
    wanted = (wanted_of(x, w, PLAIN) + torch.from_numpy(b)).relu() + torch.from_numpy(x)
    np.testing.assert_allclose(y, wanted.numpy(), atol=2e-5)


def test_another_convolution_near_keeps_channels_last() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 8, 9, 9)).astype("float32")
    w = rng.standard_normal((8, 1, 3, 3)).astype("float32")
    projection = rng.standard_normal((4, 8, 1, 1)).astype("float32")
    module = module_of(
        x, w, PLAIN, lambda y, _: op.nn.conv2d(op.nn.relu(y), relax.const(projection))
    )
    _, rules = ran(module, x)
    assert "depthwise-planes" not in rules


@pytest.mark.parametrize("rows", [1, 3, 8])
@pytest.mark.parametrize("vectors", [1, 2, 4])
def test_every_point_computes_the_same(rows: int, vectors: int) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 3, 21, 37)).astype("float32")
    w = rng.standard_normal((3, 5, 3)).astype("float32")
    conv = contractions.Conv2d((2, 1), (2, 1, 2, 1), (1, 2), 3, 1)
    kernel = depthwise_planes.conv2d(x.shape, w.shape, conv, "float32")
    rule = next(r for r in pipeline.rules() if plugin.name_of(type(r)) == "depthwise-planes")
    match = rule.match(kernel, target.parse("cpu", 2))
    func = rule.schedule(match, {"rows": rows, "vectors": vectors, "threads": 0}).mod["main"]
    built = tvm.compile(tvm.IRModule({"main": func.with_attr("global_symbol", "main")}), "llvm")
    drawn = {"strides": [2, 1], "padding": [2, 1, 2, 1], "dilation": [1, 2]}
    wanted = wanted_of(x, w[:, None], drawn).numpy()
    out = tvm.runtime.empty(wanted.shape, "float32")
    built["main"](tvm.runtime.tensor(x), tvm.runtime.tensor(w), out)
    np.testing.assert_allclose(out.numpy(), wanted, atol=2e-5)
