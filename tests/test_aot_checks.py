"""Kernels that the model alone calls check no arguments; whoever calls a model is checked still."""

from typing import Any

import numpy as np
import onnx
import pytest
import tvm
from onnx import TensorProto, helper
from tvm import tirx

import hybridc
from hybridc.compiler.aot.checks import trusting
from hybridc.compiler.building import stack
from hybridc.compiler.errors import InputError
from hybridc.compiler.runtime.session import InferenceSession

TOLD = b"Mismatched"  # how every message about an argument begins


def two_products() -> Any:
    weight = onnx.numpy_helper.from_array(np.eye(16, dtype=np.float32), "w")
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["a"]),
            helper.make_node("Softmax", ["a"], ["b"]),
            helper.make_node("MatMul", ["b", "w"], ["y"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [3, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [3, 16])],
        [weight],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def asserting(error: str) -> Any:
    """A function of one number that raises an error unless it is 0."""
    number = tirx.Var("number", "int32")
    fine = tirx.EQ(number, tirx.const(0, "int32"))
    said = tirx.AssertStmt(fine, tvm.ir.StringImm(error), [tvm.ir.StringImm("it is none")])
    body = tirx.SeqStmt([said, tirx.Return(tirx.const(0, "int32"))])
    func = tirx.PrimFunc([number], body, tvm.ir.PrimType("int32"))
    return func.with_attr({"global_symbol": "main", "s_tir": True})


def test_no_kernel_of_a_model_checks_its_arguments() -> None:
    artifact = hybridc.compile(two_products())
    assert TOLD not in artifact.library
    x = np.random.default_rng(0).standard_normal((3, 16)).astype(np.float32)
    (y,) = InferenceSession(artifact, 2).run(None, {"x": x})
    exps = np.exp(x - x.max(1, keepdims=True))
    np.testing.assert_allclose(y, exps / exps.sum(1, keepdims=True), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    "wrong", [np.zeros((3, 17), np.float32), np.zeros((3, 16)), np.zeros(48, np.float32)]
)
def test_a_models_inputs_are_checked(wrong: Any) -> None:
    session = InferenceSession(hybridc.compile(two_products()), 2)
    with pytest.raises(InputError, match="x"):
        session.run(None, {"x": wrong})


@pytest.mark.parametrize("error", ["ValueError", "RuntimeError"])
def test_what_a_function_asserts_itself_is_asserted(error: str) -> None:
    module = tvm.IRModule({"main": trusting(asserting(error))})
    built = tvm.compile(module, target="llvm", tir_pipeline=stack.TIR_PIPELINE).jit()
    built["main"](0)
    with pytest.raises((ValueError, RuntimeError), match="it is none"):
        built["main"](1)
