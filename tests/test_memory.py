"""Memory as it is counted ahead, against what the virtual machine asks for when it runs."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hybridc.cli import main as entry
from hybridc.compiler import driver
from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.driver import Outcome
from hybridc.compiler.ir import memory
from hybridc.compiler.model import random_feed
from hybridc.compiler.runtime.session import InferenceSession


def chain(depth: int, size: int) -> onnx.ModelProto:
    """`depth` layers, each a product and a softmax, which two storages are enough for."""
    nodes, weights, last = [], [], "x"
    for index in range(depth):
        weight = np.random.default_rng(index).standard_normal((size, size)).astype("float32")
        weights.append(numpy_helper.from_array(weight, f"w{index}"))
        nodes.append(helper.make_node("MatMul", [last, f"w{index}"], [f"h{index}"]))
        nodes.append(helper.make_node("Softmax", [f"h{index}"], [f"s{index}"]))
        last = f"s{index}"
    nodes.append(helper.make_node("Relu", [last], ["y"]))
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, size])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4, size])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@pytest.fixture(scope="module")
def outcome() -> Outcome:
    return driver.compile_source(chain(5, 48), Options(verify="off", threads=1))


def allocated(outcome: Outcome) -> list[int]:
    """The bytes of each storage that one call of the model asks the runtime for."""
    sizes: list[int] = []

    def watch(_func: object, name: str, before: bool, _result: object, *given: Any) -> int:
        if before and name == "vm.builtin.alloc_storage":
            shape, kind = given[1], np.dtype(str(given[3]))
            sizes.append(int(np.prod([int(extent) for extent in shape])) * kind.itemsize)
        return 0

    session = InferenceSession(outcome.artifact)
    session.instrument(watch)
    session.run(None, random_feed(outcome.artifact.inputs))
    return sizes


def test_it_is_what_the_virtual_machine_asks_for(outcome: Outcome) -> None:
    counted = outcome.report.memory
    assert sum(allocated(outcome)) == counted.activations + counted.outputs
    assert counted.inputs == counted.outputs == 4 * 48 * 4


def test_sharing_is_told(outcome: Outcome) -> None:
    counted = outcome.report.memory
    assert 0 < counted.activations < counted.unshared
    deeper = driver.compile_source(chain(9, 48), Options(verify="off", threads=1)).report.memory
    assert deeper.activations == counted.activations
    assert deeper.unshared > counted.unshared
    assert counted.weights == sum(a.nbytes for a in outcome.artifact.weights.values())
    assert counted.peak == (
        counted.weights + counted.inputs + counted.outputs + counted.activations + counted.workspace
    )


KERNEL = """
@T.prim_func(s_tir=True)
def main(x: T.Buffer((8, 64), "float32"), y: T.Buffer((8, 64), "float32")):
    T.func_attr({"global_symbol": "main", "tirx.noalias": True})
    with T.sblock("root"):
        whole = T.alloc_buffer((8, 64), "float32")
        for i in T.serial(8):
            for j in T.serial(64):
                with T.sblock("whole"):
                    vi, vj = T.axis.remap("SS", [i, j])
                    whole[vi, vj] = x[vi, vj] * T.float32(2)
        for i in T.parallel(8):
            with T.sblock("row"):
                vi = T.axis.spatial(8, i)
                T.reads(whole[vi, 0:64])
                T.writes(y[vi, 0:64])
                line = T.alloc_buffer((64,), "int16")
                for j in T.serial(64):
                    line[j] = T.cast(whole[vi, j], "int16")
                for j in T.serial(64):
                    y[vi, j] = T.cast(line[63 - j], "float32")
"""


def test_a_kernels_own_buffers_count_for_each_thread_that_has_them() -> None:
    import tvm
    from tvm.script import tirx

    kernel = tvm.script.from_source(KERNEL, {"T": tirx})
    assert memory.workspace(kernel, 1) == 8 * 64 * 4 + 64 * 2
    assert memory.workspace(kernel, 3) == 8 * 64 * 4 + 3 * 64 * 2


def test_inspect_prints_it(
    outcome: Outcome, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "chain.hyb"
    outcome.artifact.save(path)
    assert entry.run(["inspect", str(path)]) == 0
    out = capsys.readouterr().out
    assert "memory:\n" in out
    assert "  weights: 46.08 kB\n" in out
    assert "peak memory" in outcome.report.summary()
