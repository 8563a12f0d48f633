"""Which kernels of a model libraries compute on a GPU: on the fake one, by a made-up library."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import fake_cuda
import numpy as np
import pytest
from cuda_emulator import needs_compiler
from tvm import relax

from hybridc.compiler import pipeline, plugin, target
from hybridc.compiler.configuration import plans
from hybridc.compiler.interfaces import Context
from hybridc.compiler.offload import backend as backends
from hybridc.compiler.offload import match
from hybridc.compiler.target import CUDA

pytestmark = needs_compiler
HERE = Path(__file__).parent

# The fake GPU's memory is the host's: numpy computes there.
_LIBRARY = """
import ctypes
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hybridc.compiler.interfaces import NotApplicable
from hybridc.compiler.offload.backend import Backend


def array(tensor):
    shape = tuple(int(extent) for extent in tensor.shape)
    memory = (ctypes.c_float * int(np.prod(shape))).from_address(tensor.data_ptr())
    return np.ctypeslib.as_array(memory).reshape(shape)


@dataclass(frozen=True)
class Quick(Backend):
    \"\"\"Products by numpy.\"\"\"

    packages: ClassVar[tuple[str, ...]] = ()
    device: ClassVar[str] = "cuda"
    overhead: ClassVar[float] = 0.0

    def supports(self, graph, target):
        alone = graph.operators == ("matmul",)
        return None if alone else NotApplicable("it is not a product alone")

    def build(self, graph, threads):
        def call(left, right, result):
            array(result)[:] = array(left) @ array(right) * FACTOR
        return call
"""
_COMPILE = """
from pathlib import Path
import numpy as np
from onnx_models import FLOAT, build as model, node
from hybridc.compiler import driver
from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.runtime.session import InferenceSession

draw = np.random.default_rng(0)
w = draw.standard_normal((96, 64)).astype("float32")
v = draw.standard_normal((64, 40)).astype("float32")
nodes = [node("MatMul", "x w", "z"), node("Tanh", "z", "s"), node("MatMul", "s v", "y")]
source = model(nodes, [("x", FLOAT, (24, 96))], [("y", FLOAT, (24, 40))], {"w": w, "v": v})
said = []
chosen = {"backends": ("tvm", "quick"), "plugins": (Path("LIBRARY"),)}
options = Options(target="cuda", progress=said.append, **chosen)

made = driver.compile_source(source, options)
print(len(made.artifact.offloads))
print([note for note in made.report.notes if "elements differ" in note])
assert "measure backends, kernel 2 of 2" in said, said
x = draw.standard_normal((24, 96)).astype("float32")
(got,) = InferenceSession(made.artifact).run(None, {"x": x})
np.testing.assert_allclose(got, np.tanh(x @ w) @ v, rtol=1e-4, atol=1e-4)
"""


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a process on a machine with the fake GPU."""
    return fake_cuda.environment(tmp_path_factory.mktemp("fake"))


@pytest.mark.parametrize(("factor", "offloads"), [("1", "2"), ("1.1", "0")])
def test_what_is_faster_and_right_is_chosen(
    factor: str, offloads: str, machine: dict[str, str], tmp_path: Path
) -> None:
    library = tmp_path / "quick.py"
    library.write_text(_LIBRARY.replace("FACTOR", factor))
    done = subprocess.run(
        [sys.executable, "-c", _COMPILE.replace("LIBRARY", str(library))],
        cwd=HERE,
        env=machine,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    count, differ = done.stdout.splitlines()
    assert count == offloads
    assert (differ != "[]") == (offloads == "0")


def test_libraries_get_products_before_these_are_laid_out_for_our_kernels() -> None:
    steps = pipeline.parse(pipeline.on_device("default", CUDA))
    module: Any = plans
    extended = module._offloading(steps, pipeline.passes(), CUDA)
    order = [plugin.text(step) for step in extended]
    assert order.index("offload") < order.index("align-weights") < order.index("legalize")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_libraries_get_products_of_16_bits_as_the_model_has_them(dtype: str) -> None:
    """With what is behind them, and in no other type."""
    x = relax.Var("x", relax.TensorType((64, 32), dtype))
    w, b = (relax.const(np.ones(shape), dtype) for shape in ((32, 48), (48,)))
    builder = relax.BlockBuilder()
    op: Any = relax.op
    with builder.function("main", [x]):
        with builder.dataflow():
            product = builder.emit(op.matmul(x, w))
            y = builder.emit_output(op.nn.relu(op.add(product, b)))
        builder.emit_func_output(y)
    steps = pipeline.parse(pipeline.on_device("default", CUDA))
    module: Any = plans
    extended = module._offloading(steps, pipeline.passes(), CUDA)
    place = [plugin.text(step) for step in extended].index("offload")
    here = target.parse("nvidia/h200")
    made = pipeline.run(extended[:place], builder.finalize(), Context(here))
    (found,) = match.find(made)
    assert found.graph.operators == ("matmul", "add", "nn.relu")
    assert {each.dtype for each in (*found.graph.operands, *found.graph.steps)} == {dtype}
    library = backends.backends().create("cublaslt")
    assert library.supports(found.graph, here) is None


@pytest.mark.parametrize(("name", "attention"), [("sdpa", True), ("cudnn", False)])
def test_attention_and_convolutions_of_16_bits_are_taken(name: str, attention: bool) -> None:
    shape = (2, 4, 32, 16) if attention else (1, 8, 8, 16)
    operands = [relax.Var(f"x{i}", relax.TensorType(shape, "float16")) for i in range(3)]
    builder = relax.BlockBuilder()
    op: Any = relax.op
    with builder.function("main", operands):
        with builder.dataflow():
            if attention:
                q, k, v = operands
                scores = op.matmul(q, op.permute_dims(k, [0, 1, 3, 2]))
                made = op.matmul(op.nn.softmax(scores, -1), v)
            else:
                w = relax.const(np.ones((8, 3, 3, 16), "float16"))
                layouts = {"data_layout": "NHWC", "kernel_layout": "OHWI"}
                made = op.nn.relu(op.nn.conv2d(operands[0], w, padding=1, **layouts))
            y = builder.emit_output(builder.normalize(made))
        builder.emit_func_output(y)
    module = relax.transform.Normalize()(builder.finalize())
    (found,) = match.find(module, attention)
    library = backends.backends().create(name)
    assert library.supports(found.graph, target.parse("nvidia/h200")) is None
