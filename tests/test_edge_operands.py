"""Empty tensors, scalars, and constants that compilers reason with; the oracle is ONNX's reference.

All operators of a test are outputs of one model, which takes a tenth of the time.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from hybridc.compiler import driver
from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.runtime.session import InferenceSession

Array = Any
F = np.float32


@dataclass(frozen=True)
class Case:
    """An operator on inputs, some of which are constants."""

    operator: str
    inputs: Sequence[Array]
    constants: tuple[int, ...] = ()
    options: dict[str, Any] = field(default_factory=dict[str, Any])
    outputs: int = 1


def model(cases: Sequence[Case]) -> tuple[Any, dict[str, Array]]:
    nodes: list[Any] = []
    tensors: list[Any] = []
    feed: dict[str, Array] = {}
    for number, case in enumerate(cases):
        names = [f"i{number}_{place}" for place in range(len(case.inputs))]
        made = [f"o{number}_{place}" for place in range(case.outputs)]
        for place, (name, array) in enumerate(zip(names, case.inputs, strict=True)):
            if place in case.constants:
                tensors.append(numpy_helper.from_array(array, name))
            else:
                feed[name] = array
        nodes.append(helper.make_node(case.operator, names, made, **case.options))
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
        for name, a in feed.items()
    ]
    outputs = [onnx.ValueInfoProto(name=name) for node in nodes for name in node.output]
    graph = helper.make_graph(nodes, "edges", inputs, outputs, tensors)
    opsets = [helper.make_opsetid("", 20)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10), feed


def check(cases: Sequence[Case]) -> None:
    """Compare by ONNX's reference, sign of zero apart."""
    proto, feed = model(cases)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the mean of nothing
        wanted: list[Any] = list(ReferenceEvaluator(proto).run(None, feed))
    options = Options(verify="off", threads=1, fallback=False)
    outcome = driver.compile_source(onnx.shape_inference.infer_shapes(proto), options)
    session = InferenceSession(outcome.artifact, 1)
    got = session.run(None, {each.name: feed[each.name] for each in session.get_inputs()})
    names = [case.operator for case in cases for _ in range(case.outputs)]
    wanted_arrays: list[Any] = list(wanted)
    for name, value, right in zip(names, got, wanted_arrays, strict=True):
        assert (value.shape, value.dtype) == (right.shape, right.dtype), name
        np.testing.assert_allclose(value, right, rtol=1e-5, atol=0, err_msg=name)


def noise(*shape: int) -> Array:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(F)


def ints(*values: int) -> Array:
    return np.array(values, np.int64)


REDUCTIONS = (
    *("ReduceSum", "ReduceProd", "ReduceMax", "ReduceMin", "ReduceMean", "ReduceL1", "ReduceL2"),
    *("ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare"),
)


def test_reductions_of_nothing_and_of_scalars() -> None:
    empty, scalar = noise(2, 0, 3), np.array(1.5, F)
    cases = [
        Case(name, (empty, ints(axis)), (1,), {"keepdims": axis % 2})
        for name in REDUCTIONS
        for axis in (0, 1)
    ]
    cases += [Case(name, (scalar,)) for name in REDUCTIONS if name != "ReduceLogSumExp"]
    integers = np.array([[-3, 0], [2, 2**31 - 1]], np.int32)
    cases.append(Case("ReduceMean", (integers, ints(0)), (1,)))
    check(cases)


def test_reductions_over_no_axes_are_of_each_element_alone() -> None:
    """As in ONNX Runtime, which verifies it; ONNX's reference gives the input itself."""
    cases = [Case(name, (noise(2, 3) + 5,), (), {"noop_with_empty_axes": 1}) for name in REDUCTIONS]
    proto, _ = model(cases)
    typed = onnx.shape_inference.infer_shapes(proto)
    assert driver.compile_source(typed, Options(threads=1)).artifact


def test_products_of_nothing() -> None:
    left, right = noise(2, 0), noise(0, 3)
    einsum = {"equation": "ij,jk->ik"}
    check(
        [
            Case("MatMul", (left, right)),
            Case("MatMul", (left, right), (1,)),
            Case("MatMul", (noise(0, 2, 4), noise(4, 3)), (1,)),
            Case("Gemm", (left, right, noise(3)), (1, 2)),
            Case("Einsum", (left, right), (), einsum),
            Case("Einsum", (noise(0, 2), noise(2, 3)), (), einsum),
            Case("Einsum", (noise(2, 0),), (), {"equation": "ij->i"}),
            Case("Conv", (noise(0, 3, 5, 5), noise(4, 3, 3, 3)), (1,)),
            Case("MaxPool", (noise(0, 3, 5, 5),), (), {"kernel_shape": [2, 2]}),
        ]
    )


def test_nothing_is_moved() -> None:
    data, rows, zeros = noise(3, 4), np.zeros((0, 4), np.int64), np.zeros((0, 2), np.int64)
    check(
        [
            Case("ScatterND", (data, np.zeros((0, 1), np.int64), noise(0, 4))),
            Case("ScatterElements", (data, rows, noise(0, 4)), (), {"reduction": "add"}),
            Case("GatherND", (data, zeros)),
            Case("Gather", (data, ints())),
            Case("Concat", (noise(2, 0), noise(2, 3)), (), {"axis": 1}),
            Case("Split", (data, ints(0, 4)), (1,), {"axis": 1}, 2),
            Case("Slice", (data, ints(2), ints(2), ints(0)), (1, 2, 3)),
            Case("Pad", (noise(2, 0), ints(0, 1, 1, 1)), (1,)),
            Case("TopK", (data, ints(0)), (1,), {}, 2),
        ]
    )


def test_all_of_the_data_is_chosen_by_indices_of_no_numbers() -> None:
    data, indices = noise(2, 3), np.zeros((2, 4, 0), np.int64)
    proto, feed = model([Case("GatherND", (data, indices), (), {"batch_dims": 1})])
    known = onnx.shape_inference.infer_shapes(proto)
    artifact = driver.compile_source(known, Options(verify="off", threads=1)).artifact
    (got,) = InferenceSession(artifact, 1).run(None, feed)
    np.testing.assert_array_equal(got, np.broadcast_to(data[:, None], (2, 4, 3)))


def test_constants_that_compilers_reason_with() -> None:
    """Times 0 and 0 divided are NaN where the other operand says so."""
    x = np.array([np.nan, np.inf, -np.inf, 1, -1, 0, 3e38, 1e-40], F)
    cases: list[Case] = []
    for value in (0.0, -0.0, 1.0, -1.0):
        number = np.array(value, F)
        for operator in ("Mul", "Div", "Add", "Sub", "Max", "Pow"):
            cases.append(Case(operator, (x, number), (1,)))
            cases.append(Case(operator, (number, x), (0,)))
    nothing = {"alpha": 0.0}
    cases += [Case(n, (x,), (), nothing) for n in ("LeakyRelu", "Elu", "ThresholdedRelu")]
    bias = np.array([np.nan, 1, 2], F)
    cases.append(Case("Gemm", (noise(1, 2), noise(2, 3), bias), (1,), {"beta": 0.0}))
    flipped = {"beta": 0.0, "alpha": 0.5, "transA": 1, "transB": 1}
    cases.append(Case("Gemm", (noise(2, 1), noise(3, 2), bias), (1,), flipped))
    cases.append(Case("PRelu", (np.array(-1.5, F), np.array(0.5, F))))
    check(cases)


def test_integers_wrap_beside_large_constants() -> None:
    cases: list[Case] = []
    for name in ("uint8", "int32", "uint32", "int64", "uint64"):
        limits = np.iinfo(name)
        x = np.array([limits.min, limits.max, 0, 1, limits.max // 2 + 1, 5], name)
        for value in (limits.max, limits.max // 2 + 1, limits.max - 1):
            number = np.array(value, name)
            cases += [Case(op, (x, number), (1,)) for op in ("Add", "Sub", "Mul")]
        cases.append(Case("Sign", (x,)))
    with np.errstate(over="ignore"):
        check(cases)


def test_the_largest_of_types_that_sorts_lack() -> None:
    check(
        [
            Case("TopK", (np.array([3, np.iinfo(name).max, 5], name), ints(2)), (1,), {}, 2)
            for name in ("int16", "uint16", "uint32", "uint64")
        ]
    )
