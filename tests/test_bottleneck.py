"""Depthwise convolutions joined with their neighbours, against ONNX Runtime."""

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from hybridc.compiler import frontend, pipeline, target
from hybridc.compiler.interfaces import Context
from hybridc.compiler.ir import evaluate
from hybridc.compiler.kernels.convolutions import bottleneck
from hybridc.compiler.kernels.convolutions.bottleneck import Bottleneck

FEW = settings(max_examples=8, deadline=None, derandomize=True)
PIPELINE = (
    "fold-constants,layout,merge-transposes{views=true},fold-constants,pack-weights,legalize,fuse,"
    "fuse-depthwise,schedule"
)


def network(
    size: tuple[int, ...], channels: tuple[int, int, int], window: tuple[int, int], pads: list[int]
) -> onnx.ModelProto:
    """Expansion, window (side and stride) and projection; 0 channels leave a stage out."""
    inputs, middle, outputs = channels
    random_numbers = np.random.default_rng(0)
    nodes: list[Any] = []
    weights: list[Any] = []

    def stage(source: str, shape: tuple[int, ...], **attributes: Any) -> str:
        name = f"w{len(weights)}"
        values = random_numbers.standard_normal(shape).astype("float32")
        weights.append(numpy_helper.from_array(values, name))
        nodes.append(helper.make_node("Conv", [source, name], [f"c{name}"], **attributes))
        nodes.append(helper.make_node("Relu", [f"c{name}"], [f"r{name}"]))
        return f"r{name}"

    last = stage("x", (middle, inputs, 1, 1)) if inputs else "x"
    side, stride = window
    last = stage(last, (middle, 1, side, side), group=middle, strides=[stride, stride], pads=pads)
    last = stage(last, (outputs, middle, 1, 1)) if outputs else last
    shape = [size[0], inputs or middle, *size[1:]]
    graph = helper.make_graph(
        nodes,
        "bottleneck",
        [helper.make_tensor_value_info("x", 1, shape)],
        [helper.make_tensor_value_info(last, 1, None)],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return onnx.shape_inference.infer_shapes(model)


def rules_for(proto: onnx.ModelProto, cpu: str) -> list[str]:
    """Compile, compare with ONNX Runtime, and tell the rules that took the kernels."""
    model = frontend.load(proto)
    context = Context(target.parse(cpu, threads=2), pipeline.rules())
    module = pipeline.run(pipeline.parse(PIPELINE), model.module, context)
    shape = [d.dim_value for d in proto.graph.input[0].type.tensor_type.shape.dim]
    x = np.random.default_rng(1).standard_normal(shape).astype("float32")
    (got,) = evaluate.evaluate(module, [x])
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    wanted: Any = session.run(None, {"x": x})[0]
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4 * float(np.abs(wanted).max() + 1))
    return [record.rule for record in context.kernels]


@pytest.mark.parametrize("cpu", ["cpu", "avx2"])
@FEW
@given(
    size=st.tuples(st.integers(1, 2), st.integers(5, 20), st.integers(5, 20)),
    channels=st.sampled_from(
        [(3, 17, 5), (16, 48, 24), (0, 32, 16), (0, 24, 100), (8, 40, 0), (1, 2, 1), (16, 64, 64)]
    ),
    window=st.sampled_from([(1, 1), (2, 2), (2, 1), (3, 1), (3, 2), (5, 1), (5, 2), (5, 3)]),
    pads=st.lists(st.integers(0, 3), min_size=4, max_size=4),
)
def test_every_chain_has_a_rule(
    cpu: str,
    size: tuple[int, ...],
    channels: tuple[int, int, int],
    window: tuple[int, int],
    pads: list[int],
) -> None:
    assert "fallback" not in rules_for(network(size, channels, window, pads), cpu)


def test_a_bottleneck_is_one_kernel() -> None:
    proto = network((1, 56, 56), (24, 144, 24), (3, 1), [1, 1, 1, 1])
    assert rules_for(proto, "cpu").count("depthwise-bottleneck") == 1


def case(rows: int, channels: tuple[int, int, int], stride: int = 1) -> Bottleneck:
    before = (rows * stride, rows * stride)
    return Bottleneck(1, before, (rows, rows), *channels, (3, 3), stride, 1)


def test_a_stage_between_two_windows_joins_one_of_them() -> None:
    """Separable convolutions in a row: each 1x1 stage is behind one window and before the next."""
    first = network((1, 32, 32), (0, 32, 32), (3, 1), [1] * 4)
    for _ in range(2):
        first = _followed(first, network((1, 32, 32), (0, 32, 32), (3, 1), [1] * 4))
    assert rules_for(first, "cpu").count("depthwise-bottleneck") >= 1


def _followed(first: onnx.ModelProto, second: onnx.ModelProto) -> onnx.ModelProto:
    """One network that reads what another computes."""
    names = first.graph.output[0].name, second.graph.input[0].name
    return onnx.compose.merge_models(
        first, second, io_map=[names], prefix2=f"{len(first.graph.node)}_"
    )


def test_rows_computed_twice_are_counted() -> None:
    whole = case(56, (24, 144, 24))
    assert whole.expanded_rows(56) == 56
    assert whole.expanded_rows(28) == 58
    assert whole.expanded_rows(1) == 3 * 56 - 2
    assert case(28, (24, 144, 24), stride=2).expanded_rows(14) == 57


def machine(cpu: str, l3_bytes_per_cycle: float) -> target.Target:
    """A target of 512 KiB beside each core, whose third level is as fast as told."""
    given = replace(target.parse(cpu, threads=2), l2=512 * 2**10, l3=32 * 2**20)
    facts = replace(given.machine, l3_bytes_per_cycle=l3_bytes_per_cycle)
    return replace(given, machine=facts)


@pytest.mark.parametrize("cpu", ["avx2", "avx512"])
def test_small_images_with_many_channels_stay_apart(cpu: str) -> None:
    assert bottleneck.best(case(56, (24, 144, 24)), machine(cpu, 16.0))
    assert bottleneck.best(case(7, (160, 960, 160)), machine(cpu, 16.0)) is None


def test_rows_are_computed_twice_only_where_memory_is_slow() -> None:
    chain = case(56, (24, 144, 24))
    assert bottleneck.best(chain, machine("avx2", 4.0)) == chain
    assert bottleneck.best(chain, machine("avx2", 24.0)) == replace(chain, inputs=0)


def test_rows_that_no_window_reads_stay_apart() -> None:
    cpu = target.parse("avx512", threads=2)
    gaps = Bottleneck(1, (56, 56), (28, 28), 24, 144, 24, (1, 1), 2, 0)
    assert bottleneck.best(gaps, cpu) is None
