"""Comparisons as numbers within arithmetic, in kernels with vectors."""

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from hybridc.compiler import driver
from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.runtime.session import InferenceSession

# What binds its operand to a variable: it is read more than once.
READERS = {
    "Sin": ("masked",),
    "Erf": ("masked",),
    "Max": ("masked", "y"),
    "ReduceMax": ("masked", "last"),
    "ReduceMin": ("number", "last"),
}


def masks(columns: int) -> onnx.ModelProto:
    """Each of `READERS` of `y * (x > limit)`, or of the mask as a number."""
    nodes: list[onnx.NodeProto] = []
    for name, given in READERS.items():  # each with a mask of its own, to be in one kernel with it
        above, number, masked = (f"{name}-{part}" for part in ("above", "number", "masked"))
        own = {"number": number, "masked": masked}
        nodes += [
            helper.make_node("Greater", ["x", name.lower()], [above]),
            helper.make_node("Cast", [above], [number], to=TensorProto.FLOAT),
            helper.make_node("Mul", [number, "y"], [masked]),
            helper.make_node(name, [own.get(each, each) for each in given], [name]),
        ]
    inputs = [helper.make_tensor_value_info(x, TensorProto.FLOAT, (3, columns)) for x in "xy"]
    outputs = [onnx.ValueInfoProto(name=name) for name in READERS]
    constants = [
        numpy_helper.from_array(np.array([-1]), "last"),
        *(
            numpy_helper.from_array(np.array(0.1 * i, np.float32), name.lower())
            for i, name in enumerate(READERS)
        ),
    ]
    graph = helper.make_graph(nodes, "masks", inputs, outputs, constants)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return onnx.shape_inference.infer_shapes(made)


def test_vectors_of_comparisons_are_numbers() -> None:
    made = masks(49)  # whole vectors, and a rest
    outcome = driver.compile_source(made, Options(verify="off", threads=1))
    rng = np.random.default_rng(0)
    feed = {name: rng.standard_normal((3, 49)).astype(np.float32) for name in "xy"}
    feed["x"][0], feed["x"][1] = 0.0, 1.0
    reference = onnxruntime.InferenceSession(made.SerializeToString())
    got = InferenceSession(outcome.artifact, 1).run(None, feed)
    for value, right in zip(got, reference.run(None, feed), strict=True):
        np.testing.assert_allclose(value, np.asarray(right), 1e-6, 1e-6)
