"""ONNX's own runner, pointed at us."""

import unittest

import numpy as np
import onnx.backend.test
import pytest
from onnx import helper

import hybridc.onnx_backend as backend
from hybridc.compiler.errors import InputError, ModelError

CASES = ("test_add_cpu", "test_relu_cpu", "test_reduce_sum_keepdims_random_cpu", "test_pow_cpu")


@pytest.mark.slow
def test_onnx_runs_its_cases_on_us() -> None:
    runner = onnx.backend.test.BackendTest(backend.HybridcBackend, __name__)
    for case in CASES:
        runner.include(f"^{case}$")
    result = unittest.TestResult()
    runner.test_suite.run(result)
    ran = result.testsRun - len(result.skipped)
    assert ran == len(CASES)
    assert not result.failures
    assert not result.errors


def test_a_node_alone() -> None:
    x = np.array([-1, 2], np.float32)
    (y,) = backend.run_node(helper.make_node("Relu", ["x"], ["y"]), [x])
    np.testing.assert_array_equal(y, [0, 2])


def test_inputs_that_decide_shapes_may_change() -> None:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("ReduceSum", ["x", "axes"], ["y"], keepdims=0)],
        "sum",
        [value("x", 1, ["n", 3]), value("axes", 7, [1])],
        [value("y", 1, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    prepared = backend.prepare(model)
    for rows, axis in ((2, 0), (2, 1), (4, 1)):
        x = np.arange(3.0 * rows, dtype=np.float32).reshape(rows, 3)
        (y,) = prepared.run([x, np.array([axis])])
        np.testing.assert_array_equal(y, x.sum(axis))


def test_other_devices_are_refused() -> None:
    assert backend.supports_device("CPU")
    assert not backend.supports_device("CUDA")
    with pytest.raises(InputError, match=r"device 'CUDA' is not supported; known: CPU"):
        backend.prepare(helper.make_model(helper.make_graph([], "g", [], [])), "CUDA")


def test_what_cannot_be_compiled_says_so() -> None:
    made = helper.make_node("NonZero", ["x"], ["y"])
    with pytest.raises(ModelError, match="depends on the data"):
        backend.run_node(made, [np.ones(3, np.float32)], fallback=False)


def test_what_cannot_be_compiled_is_left_to_another_runtime() -> None:
    made = helper.make_node("NonZero", ["x"], ["y"])
    (y,) = backend.run_node(made, [np.array([0, 3, 0, 4], np.float32)])
    np.testing.assert_array_equal(y, [[1, 3]])
    value = helper.make_tensor_value_info
    kinds = [value("x", 1, ["n"]), value("y", 1, ["n"])]
    plain = helper.make_model(
        helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "relu", kinds[:1], kinds[1:]),
        opset_imports=[helper.make_opsetid("", 20)],
    )
    prepared = backend.prepare(plain)
    prepared.run([np.ones(2, np.float32)])
    assert prepared.regions() == ()


def test_sequences_are_taken_and_given_as_lists() -> None:
    sequence = helper.make_tensor_sequence_value_info
    graph = helper.make_graph(
        [helper.make_node("SequenceInsert", ["s", "x"], ["y"])],
        "insert",
        [sequence("s", 1, ["n"]), helper.make_tensor_value_info("x", 1, ["n"])],
        [sequence("y", 1, ["n"])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    prepared = backend.prepare(model)
    one, two = np.ones(2, np.float32), np.zeros(2, np.float32)
    (y,) = prepared.run([[one], two])
    np.testing.assert_array_equal(y, [one, two])
    assert len(prepared.regions()) == 1
