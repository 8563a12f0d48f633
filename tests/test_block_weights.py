"""Products with the weights of few bits that a model holds, of any number of rows."""

from typing import Any

import numpy as np
import pytest
from decoders import Decoder, Sizes
from onnx import TensorProto, helper, numpy_helper
from onnx_models import check
from tvm import tirx

from hybridc.compiler import strips, target
from hybridc.compiler.building.build import compile_kernel
from hybridc.compiler.frontend import load
from hybridc.compiler.kernels import bfloat16_lowering
from hybridc.compiler.kernels.products import grouped_weights, weight_only
from hybridc.compiler.quantization import group_quantization
from hybridc.compiler.quantization.group_quantization import Grouped, in_panels
from hybridc.compiler.runtime.tensors import to_numpy, to_tensor
from hybridc.schedules.grouped_weights import GroupedWeights
from hybridc.schedules.weight_only_dense import WeightOnlyDense

CPU = target.parse("cpu", threads=2)
DEPTH, COLUMNS, SIZE = 96, 70, 32
RULES: tuple[Any, ...] = (GroupedWeights(), WeightOnlyDense())


def scheduled(strip: Any) -> Any:
    """A strip by the rule that takes it."""
    for rule in RULES:
        match = rule.match(strip.func, CPU)
        if hasattr(match, "problem"):
            made = rule.schedule(match, rule.default(match, CPU)).mod["main"]
            return strips.Scheduled(strip, made)
    raise AssertionError(f"no rule for {strip.sizes}")


@pytest.mark.parametrize("bits", [4, 8])
def test_few_rows_are_grouped_and_many_unpacked_to_the_same(bits: int) -> None:
    rng, groups = np.random.default_rng(0), DEPTH // SIZE
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1)
    q = rng.integers(low, high, (DEPTH, COLUMNS)).astype(np.int8)
    s = rng.uniform(0.01, 0.1, (groups, COLUMNS)).astype(np.float32)
    z = rng.integers(low, high, s.shape).astype(np.int8)
    wide = (q.reshape(groups, SIZE, -1) - z[:, None].astype(np.float64)) * s[:, None]
    width = weight_only.panel_width(1, COLUMNS, CPU)
    integers, _ = group_quantization.packed(Grouped(q, s, SIZE, DEPTH, bits), width)
    held = [grouped_weights.stored(integers, bits), in_panels(s, width), in_panels(z, width)]
    shape = (tirx.Var("b", "int64"), tirx.Var("s", "int64"), DEPTH)
    func = grouped_weights.dense(shape, held[0], held[1], COLUMNS, bits, held[2])
    whole = strips.join(func, [scheduled(strip) for strip in strips.cuts(func)], CPU.threads)
    kernel = compile_kernel(bfloat16_lowering.lowered(whole, CPU), CPU)["main"]
    for rows in (1, 3, 7, 20, 70):
        x = rng.standard_normal((2, rows, DEPTH)).astype(np.float32)
        out = to_tensor(np.full((2, rows, COLUMNS), np.nan, np.float32))
        kernel(*map(to_tensor, (x, *held)), out)
        wanted = x.astype(np.float64) @ wide.reshape(DEPTH, COLUMNS)
        got = to_numpy(out, np.dtype(np.float32))
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4 * 2**bits / 16)


def test_weights_too_large_for_the_graph_are_found() -> None:
    sizes = Sizes(hidden=256, layers=1)
    decoder = Decoder(sizes)
    decoder.linear("x", "y", 256, 256)
    tensors = [numpy_helper.from_array(v, n) for n, v in decoder.constants.items()]
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 256])
    made = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(decoder.nodes, "large", [given], [made], tensors)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    check(load(helper.make_model(graph, opset_imports=opsets, ir_version=10)))
