"""From a model to an artifact, against answers that ONNX Runtime and numpy give."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from hybridc.compiler import driver
from hybridc.compiler.artifacts.artifact import Artifact
from hybridc.compiler.assurance.contract import Contract
from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.errors import (
    ContractError,
    InputError,
    ModelError,
    PluginError,
    WrongAnswerError,
)
from hybridc.compiler.hardware import host
from hybridc.compiler.model import Array
from hybridc.compiler.runtime.session import InferenceSession

pytestmark = pytest.mark.usefixtures("hasty")

Floats = NDArray[np.float32]

WRONG_PASS = '''
from dataclasses import dataclass
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator
from hybridc.compiler.interfaces import Context, IRModule, Pass

@mutator
class Swap(PyExprMutator):
    def visit_call_(self, call):
        call = self.visit_expr_post_order(call)
        return relax.op.abs(*call.args) if call.op.name == "relax.nn.relu" else call

@dataclass(frozen=True)
class SwapRelu(Pass):
    """Wrong on purpose."""

    def apply(self, module: IRModule, context: Context) -> IRModule:
        swapped = module.clone()
        swapped["main"] = Swap().visit_expr(module["main"])
        return swapped
'''


def classifier(batch: int | str = 1) -> onnx.ModelProto:
    """Convolution, batch norm, relu, mean over the image, dense."""
    rng = np.random.default_rng(1)

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name)

    nodes = [
        helper.make_node("Conv", ["x", "kernel"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["c", "scale", "bias", "mean", "var"], ["n"]),
        helper.make_node("Relu", ["n"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("MatMul", ["f", "dense"], ["y"]),
    ]
    variance = numpy_helper.from_array(rng.random(16).astype(np.float32) + 0.5, "var")
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 10])],
        [
            weight("kernel", 16, 3, 3, 3),
            *(weight(name, 16) for name in ("scale", "bias", "mean")),
            variance,
            weight("dense", 16, 10),
        ],
    )
    return _model(graph)


def _model(graph: onnx.GraphProto) -> onnx.ModelProto:
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def runtime(model: onnx.ModelProto, x: Floats) -> Floats:
    """The answer of ONNX Runtime."""
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (y,) = session.run(None, {"x": x})
    return np.asarray(y)


def image(seed: int, count: int = 1) -> Floats:
    return np.random.default_rng(seed).standard_normal((count, 3, 8, 8)).astype(np.float32)


@pytest.fixture(scope="module")
def outcome() -> driver.Outcome:
    return driver.compile_source(classifier(), Options())


def test_the_artifact_answers_as_onnx_runtime_does(outcome: driver.Outcome, tmp_path: Path) -> None:
    path = tmp_path / "model.hyb"
    outcome.artifact.save(path)
    x = image(5)
    (y,) = InferenceSession(path).run(None, {"x": x})
    np.testing.assert_allclose(y, runtime(classifier(), x), rtol=1e-3, atol=1e-4)


def test_the_report_tells_every_stage_and_kernel(outcome: driver.Outcome) -> None:
    report = outcome.report
    names = [stage.name for stage in report.stages]
    assert names[:2] == ["load", "reference"]
    assert names[-4:] == ["build", "count memory", "load artifact", "verify"]
    assert [f"pass {text}" for text in report.pipeline.split(",")] == names[2:-4]
    assert all(stage.seconds >= 0 for stage in report.stages)
    assert {record.kernel for record in report.kernels} == set(outcome.artifact.lock)
    text = report.text()
    for record in report.kernels:
        assert record.kernel in text
    assert "max-abs" in report.summary()
    assert "cosine" in report.summary()


def test_the_report_in_the_artifact_has_the_numbers(outcome: driver.Outcome) -> None:
    (agreement,) = outcome.artifact.report["agreement"]
    assert agreement["ok"] is True
    assert agreement["output"] == "y"
    assert 0 <= agreement["max_abs"] < 1e-3
    assert agreement["cosine"] > 0.99999
    assert "stages" not in outcome.artifact.report
    certificate = outcome.artifact.certificate
    assert certificate["data"] == "random, seed 0, 1 sample"
    assert certificate["agreement"][0]["max_abs"] == agreement["max_abs"]


def test_the_same_inputs_give_the_same_file(outcome: driver.Outcome, tmp_path: Path) -> None:
    outcome.artifact.save(tmp_path / "a.hyb")
    driver.compile(classifier()).save(tmp_path / "b.hyb")
    assert (tmp_path / "a.hyb").read_bytes() == (tmp_path / "b.hyb").read_bytes()


@pytest.mark.parametrize("shapes", [{"x": (3, 3, 8, 8)}, {}])
def test_open_dimensions_take_the_shapes_given_or_stay_open(shapes: dict[str, Any]) -> None:
    artifact = driver.compile(classifier("batch"), shapes=shapes)
    x = image(6, 3)
    (y,) = InferenceSession(artifact).run(None, {"x": x})
    np.testing.assert_allclose(y, runtime(classifier("batch"), x), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("target", ["avx2", '{"kind": "llvm", "mcpu": "x86-64-v3"}'])
def test_other_targets_compile_and_answer(target: str) -> None:
    artifact = driver.compile(classifier(), target=target, threads=1)
    assert artifact.target["cpu"] == "x86-64-v3"
    assert artifact.target["threads"] == 1
    x = image(7)
    (y,) = InferenceSession(artifact).run(None, {"x": x})
    np.testing.assert_allclose(y, runtime(classifier(), x), rtol=1e-3, atol=1e-4)


def test_what_this_cpu_lacks_is_compiled_but_not_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "cpu_features", lambda: frozenset({"sse4.2"}))
    with pytest.raises(InputError, match=r"lacks .*avx2.* --verify off"):
        driver.compile(classifier(), target="avx2")
    artifact = driver.compile(classifier(), target="avx2", verify="off")
    assert "avx2" in artifact.lacking()


def test_calibration_samples_are_all_verified() -> None:
    made = driver.compile_source(classifier(), Options(calibration={"x": image(8, 5)}))
    assert made.artifact.certificate["data"] == "calibration data, 5 samples"
    assert made.artifact.report["agreement"][0]["shape"] == [5, 1, 10]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "missing inputs: x float32"),
        ({"x": image(1), "z": image(1)}, "unknown inputs: 'z'"),
        ({"x": image(1).astype(np.float64)}, "given: x float64"),
        ({"x": image(1)[:, :2]}, r"given: x float32\[1,2,8,8\]"),
        ({"x": image(1)[:0]}, "is empty"),
    ],
)
def test_calibration_that_does_not_fit(arrays: dict[str, Array], message: str) -> None:
    with pytest.raises(InputError, match=message):
        driver.compile(classifier(), calibration=arrays)


def test_a_contract_that_holds_is_certified() -> None:
    limits = Contract(max_latency="1h", max_size="1GB", min_accuracy={"cosine": 0.999})
    certificate = driver.compile(classifier(), contract=limits).certificate
    assert certificate["kept"] is True
    assert certificate["contract"]["min_accuracy"] == {"cosine": 0.999}
    assert certificate["measured"]["accuracy"]["cosine"]["value"] > 0.999
    assert 0 < certificate["measured"]["latency"]["value"] < 3600
    assert 0 < certificate["measured"]["size"] < 1e9
    assert certificate["latency"]["samples"] >= 5


@pytest.mark.parametrize(
    ("limits", "word"),
    [
        (Contract(max_latency="1ns"), "latency"),
        (Contract(min_throughput=1e12), "throughput"),
        (Contract(max_size="1B"), "size"),
        (Contract(min_accuracy={"max-abs": 1e-30, "cosine": 0.9}), "max-abs"),
    ],
)
def test_a_contract_that_does_not_hold(limits: Contract, word: str) -> None:
    # Two convolutions sum in different orders, so 1e-30 is out of reach.
    with pytest.raises(ContractError, match=word):
        driver.compile(classifier(), contract=limits)
    kept = driver.compile(classifier(), contract=limits, keep_best=True)
    assert kept.certificate["kept"] is False
    assert word in kept.certificate["broken"][0]


@pytest.fixture
def wrong(tmp_path: Path) -> str:
    (tmp_path / "swap_relu.py").write_text(WRONG_PASS)
    return str(tmp_path / "swap_relu.py")


def test_a_wrong_pass_is_named_when_each_is_verified(wrong: str) -> None:
    with pytest.raises(WrongAnswerError, match=r"after pass swap-relu: output 'y' differs"):
        driver.compile(
            classifier(), pipeline="swap-relu,default", plugins=[Path(wrong)], verify="each"
        )


def test_a_wrong_answer_is_caught_at_the_end_and_not_at_all_when_off(wrong: str) -> None:
    options: dict[str, Any] = {"pipeline": "swap-relu,default", "plugins": [Path(wrong)]}
    with pytest.raises(WrongAnswerError, match="output 'y' differs"):
        driver.compile(classifier(), **options)
    artifact = driver.compile(classifier(), verify="off", **options)
    assert artifact.report["agreement"] == []


def test_wider_tolerances_are_taken(wrong: str) -> None:
    options: dict[str, Any] = {"pipeline": "swap-relu,default", "plugins": [Path(wrong)]}
    artifact = driver.compile(classifier(), rtol=0.0, atol=1e6, **options)
    assert artifact.report["agreement"][0]["max_abs"] > 1e-3


def test_each_pass_is_verified_where_all_is_well() -> None:
    assert isinstance(driver.compile(classifier(), verify="each"), Artifact)


def test_the_ir_is_dumped_where_a_pass_changed_it(tmp_path: Path) -> None:
    driver.compile_source(classifier(), Options(dump_ir=tmp_path))
    names = sorted(path.name for path in tmp_path.iterdir())
    assert any(name.endswith("fold-batch-norm-after.py") for name in names)


def test_the_plan_is_checked_before_the_model_is_looked_for() -> None:
    with pytest.raises(PluginError, match="did you mean 'fuse'"):
        driver.compile("no/such/model.onnx", pipeline="fuze")
    with pytest.raises(InputError, match="target 'gpu' is not supported"):
        driver.compile("no/such/model.onnx", target="gpu")
    with pytest.raises(InputError, match="verify is each, end or off"):
        driver.compile("no/such/model.onnx", verify="always")  # type: ignore[arg-type]


def test_progress_is_told_step_by_step() -> None:
    told: list[str] = []
    driver.compile_source(classifier(), Options(progress=told.append))
    assert told[0] == "load"
    assert "pass fold-batch-norm" in told
    assert told[-2:] == ["load artifact", "verify"]


def test_an_unsupported_operator_is_named() -> None:
    graph = helper.make_graph(
        [helper.make_node("FlyToTheMoon", ["x"], ["y"], name="apollo", domain="nasa")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
    )
    model = _model(graph)
    model.opset_import.append(helper.make_opsetid("nasa", 1))
    with pytest.raises(ModelError, match="FlyToTheMoon"):
        driver.compile(model)
