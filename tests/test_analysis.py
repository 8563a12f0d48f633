"""The analysis of models: counts by hand, kinds of architecture, gains that a log teaches."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import log_records
import numpy as np
import pytest
import region_models
from onnx import TensorProto, helper, numpy_helper

from hybridc.compiler import frontend, target
from hybridc.compiler.anatomy import analysis
from hybridc.compiler.anatomy.analysis import Analysis
from hybridc.compiler.anatomy.inspection import analyse_model
from hybridc.compiler.anatomy.operators import operators
from hybridc.compiler.anatomy.work import Operator
from hybridc.compiler.hardware.roofline import Roofs
from hybridc.compiler.log import access, keys
from hybridc.compiler.log.record import Verdict
from hybridc.compiler.orchestration.expected_gains import from_log, gains
from hybridc.compiler.orchestration.expected_gains.gains import Facts, Gain
from hybridc.compiler.orchestration.stages import Stage

FLOAT = TensorProto.FLOAT
RNG = np.random.default_rng(0)
DIGITS = Path(__file__).parent.parent / "examples" / "digits" / "digits.onnx"
ROOFS = Roofs(
    {"fp32": 100.0, "bf16": 200.0, "fp16": 100.0, "int8": 400.0}, 10.0, 50.0, 64, ("fp16",), "given"
)


def proto(nodes: Sequence[Any], shape: Sequence[int], constants: Mapping[str, Any]) -> Any:
    """A model of one input `x` and one output `y`."""
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", FLOAT, shape)],
        [helper.make_tensor_value_info("y", FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def floats(*shape: int) -> Any:
    return RNG.standard_normal(shape).astype(np.float32)


def analysed(nodes: Sequence[Any], shape: Sequence[int], constants: Mapping[str, Any]) -> Analysis:
    module = frontend.load(proto(nodes, shape, constants)).module
    return analysis.analyse(module, target.parse("cpu", 1))


@pytest.fixture(autouse=True)
def no_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYBRIDC_LOG", str(tmp_path / "none.sqlite"))


def test_a_convolution_with_its_activation() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"]),
        helper.make_node("Relu", ["c"], ["y"]),
    ]
    found = analysed(nodes, [1, 4, 8, 8], {"w": floats(6, 4, 3, 3), "b": floats(6)})
    out = 6 * 6 * 6
    assert found.weights == 6 * 4 * 9 + 6
    assert found.weight_bytes == 4 * found.weights
    assert found.flops == 2 * out * 4 * 9 + out + out  # the bias and the activation beside it
    # Input, weights and output once: what is added and cut off happens in registers.
    assert found.traffic == 4 * (4 * 8 * 8 + found.weights + out)
    assert found.architecture.kind == "cnn"
    counts = {share.operator: share.count for share in found.shares}
    assert (counts["nn.conv2d"], counts["add"], counts["nn.relu"]) == (1, 1, 1)
    assert sum(share.time for share in found.shares) == pytest.approx(1)
    expected = {each.component: each.to_json() for each in found.expected}
    assert expected["exact"]["speedup"] > 1
    assert expected["tuned"]["log_speedup"] is None
    assert expected["tuned"]["source"] == "there is no tuning log"


def test_a_perceptron_and_nothing_to_multiply() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "v"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "w"], ["y"]),
    ]
    found = analysed(nodes, [2, 8], {"v": floats(8, 16), "w": floats(16, 4)})
    assert found.architecture.kind == "mlp"
    assert found.flops == 2 * 2 * 8 * 16 + 2 * 16 + 2 * 2 * 16 * 4
    assert analysed([helper.make_node("Relu", ["x"], ["y"])], [2], {}).architecture.kind == "none"


def test_of_a_table_only_what_is_looked_up_is_moved() -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["ids"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "ids"], ["rows"]),
        helper.make_node("MatMul", ["rows", "w"], ["y"]),
    ]
    found = analysed(nodes, [4], {"table": floats(1000, 16), "w": floats(16, 8)})
    (lookup,) = [share for share in found.shares if share.operator == "take"]
    assert lookup.flops == 0
    # Rows are read and written; beside them there are only indices.
    rows = 4 * 4 * 16
    assert 2 * rows <= lookup.bytes * found.traffic < 3 * rows
    assert found.weights >= 1000 * 16 + 16 * 8


def attention(mask: Any) -> Analysis:
    constants = {name: floats(16, 16) for name in "qkv"} | {"m": mask}
    nodes = [helper.make_node("MatMul", ["x", name], [f"{name}x"]) for name in "qkv"]
    nodes += [
        helper.make_node("Transpose", ["kx"], ["kt"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["qx", "kt"], ["s"]),
        helper.make_node("Add", ["s", "m"], ["masked"]),
        helper.make_node("Softmax", ["masked"], ["p"]),
        helper.make_node("MatMul", ["p", "vx"], ["y"]),
    ]
    return analysed(nodes, [1, 8, 16], constants)


def test_attention_and_its_mask() -> None:
    assert attention(floats(8, 8)).architecture.kind == "transformer encoder"
    causal = np.triu(np.full((8, 8), -1e9, np.float32), 1)
    found = attention(causal).architecture
    assert found.kind == "transformer decoder"
    assert "a causal mask" in found.reasons


def test_a_recurrence() -> None:
    nodes = []
    for step in range(4):
        given = "x" if not step else f"h{step - 1}"
        nodes.append(helper.make_node("MatMul", [given, "w"], [f"m{step}"]))
        nodes.append(helper.make_node("Tanh", [f"m{step}"], [f"h{step}" if step < 3 else "y"]))
    found = analysed(nodes, [1, 16], {"w": floats(16, 16)})
    assert found.architecture.kind == "recurrent"
    assert found.weights == 256  # once, though four steps use them


@pytest.mark.parametrize("inputs", [6, 160])
def test_a_recurrent_layer(inputs: int) -> None:
    """Also where its inputs' product, of all steps at once, is most of the arithmetic."""
    weights = {"w": floats(1, 4 * 16, inputs), "r": floats(1, 4 * 16, 16)}
    node = helper.make_node("LSTM", ["x", "w", "r"], ["y"], hidden_size=16)
    found = analysed([node], [5, 2, inputs], weights)
    assert found.architecture.kind == "recurrent"
    assert "recurrent layers: 1 (each direction is one)" in found.architecture.reasons
    (layer,) = [each for each in found.shares if each.operator == "recurrence"]
    assert layer.flops * found.flops == pytest.approx(2 * 5 * 2 * 4 * 16 * 16)


def test_a_recurrent_layer_behind_convolutions() -> None:
    constants = {"c": floats(8, 64, 3), "w": floats(1, 4 * 16, 8), "r": floats(1, 4 * 16, 16)}
    nodes = [
        helper.make_node("Conv", ["x", "c"], ["h"]),
        helper.make_node("Transpose", ["h"], ["s"], perm=[2, 0, 1]),
        helper.make_node("LSTM", ["s", "w", "r"], ["y"], hidden_size=16),
    ]
    assert analysed(nodes, [1, 64, 12], constants).architecture.kind == "mixed"


def test_beside_what_onnx_runtime_computes_the_rest_is_analysed() -> None:
    found = analyse_model(region_models.network("NonMaxSuppression"))
    assert found["architecture"] == "cnn"
    assert found["regions"].startswith("1 handed to ONNX Runtime: 2 operators (NonMaxSuppression")
    assert "region0" in {each["operator"] for each in found["operators"]}


def test_what_constants_decide_is_not_computed() -> None:
    nodes = [
        helper.make_node("Transpose", ["w"], ["t"], perm=[1, 0]),
        helper.make_node("MatMul", ["x", "t"], ["y"]),
    ]
    module = frontend.load(proto(nodes, [2, 8], {"w": floats(300, 8)})).module
    assert [each.name for each in operators(module)] == ["matmul"]


def op(flops: int, weights: int, data: int, alone: int, kind: str = "matrix product") -> Operator:
    return Operator("matmul", kind, flops, weights, data, alone)


def test_rooflines_by_hand() -> None:
    heavy, light = op(1000, 0, 50, 50), op(0, 0, 100, 200, "elementwise")
    # 10 s of arithmetic, since 50 bytes come from the cache at once; 100 bytes from memory.
    assert ROOFS.total([heavy, light]) == 10 + 10
    assert ROOFS.total([heavy, light], "bf16") == 5 + 10
    assert ROOFS.total([heavy, light], "int8") == 2.5 + 10
    assert ROOFS.total([heavy, light], "int8-weights") == 10 + 10
    assert ROOFS.total([heavy, light], fused=False) == 10 + 20
    assert ROOFS.total([op(0, 640, 0, 0)]) == 64
    assert ROOFS.total([op(0, 200, 0, 0)], "int8") == 1  # now they fit the cache
    facts = Facts((heavy, light), ROOFS)
    assert gained(2, "bf16", facts) == pytest.approx(20 / 15)
    assert gained(2, "int8", facts) == pytest.approx(20 / 12.5)
    assert "no faster" in gains.Analysis().lowered("fp16", facts).source
    low, high = gains.Analysis().lowered("int8", facts).bounds
    assert low < 20 / 12.5 < high
    (exact, *_) = analysis._by_roofline([heavy, light], ROOFS, "cpu")  # pyright: ignore[reportPrivateUsage]
    assert exact.to_json()["speedup"] == pytest.approx(30 / 20)


def gained(depth: int, precision: str, facts: Facts) -> float:
    stage = Stage(precision, lambda options: options, lossy=True)
    return math.exp(gains.Analysis(depth).predict(stage, facts).mean)


def test_the_depth_of_an_analysis() -> None:
    """Of the whole: 1000 operations and 150 bytes at once; of each; and by their times."""
    heavy, light = op(1000, 0, 50, 50), op(0, 0, 100, 200, "elementwise")
    slow = op(500, 0, 0, 0)
    facts = Facts((heavy, slow, light), ROOFS, kernels={1000: 10.0, 500: 50.0})
    assert gained(1, "bf16", facts) == pytest.approx((15 + 10) / (7.5 + 10))
    assert gained(2, "bf16", facts) == pytest.approx((10 + 5 + 10) / (5 + 2.5 + 10))
    # The second product takes ten times as long as its roofline: so may its lower precision.
    assert gained(3, "bf16", facts) == pytest.approx((10 + 50 + 10) / (5 + 25 + 10))
    tuned = Stage("tuned", lambda options: options, component="neural")
    measured = gains.Analysis(3).predict(tuned, facts)
    assert measured.mean == pytest.approx(-math.log(1 - 0.2 * 45 / 60))
    known = replace(facts, tuned=Gain(0.3, 0.1, "a log"), unknown=0.5)
    assert gains.Analysis(2).predict(tuned, known) == Gain(0.15, 0.1, "a log")


def test_a_log_teaches_what_tuning_gains(tmp_path: Path) -> None:
    device = target.parse("cpu", 1)
    url = str(tmp_path / "log.sqlite")
    here, tools = keys.of_target(device), keys.of_toolchain()
    gains = (1.0, 1.2, 1.5)
    with access.open_log(url) as log:
        for number, gain in enumerate(gains):
            kernel = log_records.kernel(number + 1)
            for point, seconds in ((1, 1e-3), (2, 1e-3 / gain), (3, 2e-3)):
                made = log_records.record(
                    workload=kernel.key,
                    target=here.key,
                    toolchain=tools.key,
                    point={"rows": point},
                    seconds=(seconds,),
                    verdict=Verdict.OK,
                )
                log.add([made], [kernel, here, tools])
    alike = [op(1000, 0, 0, 0)] * 4
    found = from_log.by_log(alike, device, url)
    assert isinstance(found, Gain)
    logs = [math.log(gain) for gain in gains]
    assert found.mean == pytest.approx(sum(logs) / 3)
    assert found.sigma == pytest.approx(np.std(logs, ddof=1) * math.sqrt(1 / 4 + 1 / 3))
    assert "3 kernels" in found.source
    other = from_log.by_log(alike, target.parse("cpu", 2), url)
    assert other == "the tuning log has 0 tuned kernels for this target; 3 are needed"


def test_a_thousand_operators_take_seconds() -> None:
    nodes = []
    for step in range(500):
        given = "x" if not step else f"h{step - 1}"
        nodes.append(helper.make_node("MatMul", [given, f"w{step}"], [f"m{step}"]))
        nodes.append(helper.make_node("Relu", [f"m{step}"], [f"h{step}" if step < 499 else "y"]))
    weights = {f"w{step}": floats(4, 4) for step in range(500)}
    module = frontend.load(proto(nodes, [1, 4], weights)).module
    start = time.process_time()
    found = analysis.analyse(module, target.parse("cpu", 1))
    spent = time.process_time() - start
    assert sum(share.count for share in found.shares) == 1000
    assert spent < 20  # no measurement: what is quadratic would take minutes


def test_inspection_tells_it_or_why_not(tmp_path: Path) -> None:
    found = analyse_model(DIGITS)
    assert found["architecture"] == "cnn"
    assert {each["component"] for each in found["expected"]} >= {"exact", "bf16", "int8", "tuned"}
    path = tmp_path / "odd.onnx"
    model = proto([helper.make_node("Frobnicate", ["x"], ["y"])], [1], {})
    path.write_bytes(model.SerializeToString())
    assert "Frobnicate" in analyse_model(path)["reason"]
