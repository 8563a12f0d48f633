"""Mixed precision from end to end, and the roundings that it rests on."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest
import tvm
from onnx import TensorProto, helper
from tvm import te

from hybridc.compiler import driver, pipeline, target
from hybridc.compiler.assurance.reduced import REDUCED
from hybridc.compiler.assurance.verify import How, compare
from hybridc.compiler.building.build import compile_kernel
from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.errors import InputError, ModelError, WrongAnswerError
from hybridc.compiler.interfaces import Context
from hybridc.compiler.model import Array
from hybridc.compiler.runtime.tensors import to_numpy, to_tensor

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.filterwarnings("ignore")
BF16 = np.dtype(ml_dtypes.bfloat16)


def rounded(values: Array, cpu: target.Target) -> Array:
    """What a kernel makes of float32 values: bfloat16."""
    x = te.placeholder(values.shape, "float32", "x")
    func = te.create_prim_func([x, te.compute(values.shape, lambda i: x[i].astype("bfloat16"))])
    schedule = tvm.s_tir.Schedule(func)
    (loop,) = schedule.get_loops("compute")
    schedule.vectorize(schedule.split(loop, [None, 16])[1])
    context = Context(cpu)
    module = pipeline.run(pipeline.parse("lower-bfloat16"), schedule.mod, context)
    out = to_tensor(np.zeros(values.shape, BF16))
    compile_kernel(module["main"], cpu)["main"](to_tensor(values), out)
    return to_numpy(out, BF16)


@pytest.mark.parametrize("name", ["cpu", "avx512", "avx2"])
def test_rounding_is_to_nearest_even_and_keeps_what_is_no_number(name: str) -> None:
    cpu = target.parse(name, threads=2)
    if not cpu.features <= target.parse("cpu").features:
        pytest.skip(f"this host has no {name}")
    bits = np.random.default_rng(0).integers(0, 2**32, 4096, dtype=np.uint32)
    ties = np.arange(0x3F800000, 0x3F900000, 0x8000, dtype=np.uint32)[:16]
    odd = np.array([0x7F800001, 0xFFFFFFFF, 0x7F800000, 0xFF800000, 0x7F7FFFFF], np.uint32)
    values = np.concatenate([bits, ties, odd, np.zeros(11, np.uint32)]).view(np.float32)
    # The instruction takes subnormal numbers as zero.
    values = np.where(np.abs(values) < np.finfo(np.float32).tiny, np.float32(0), values)
    got, wanted = rounded(values, cpu), values.astype(BF16)
    nan = np.isnan(values)
    np.testing.assert_array_equal(np.isnan(got.astype(np.float32)), nan)
    np.testing.assert_array_equal(got.view(np.uint16)[~nan], wanted.view(np.uint16)[~nan])


class Network(torch.nn.Module):
    """A strided stem of three channels, a residual, groups, a depthwise window, a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = torch.nn.Conv2d(3, 20, 5, stride=2, padding=2)
        self.same = torch.nn.Conv2d(20, 20, 3, padding=1)
        self.grouped = torch.nn.Conv2d(20, 20, 3, groups=4, padding=1)
        self.window = torch.nn.Conv2d(20, 20, 3, groups=20, padding=1)
        self.norm = torch.nn.BatchNorm2d(20)
        self.classes = torch.nn.Linear(20, 7)

    def forward(self, x: Any) -> Any:
        x = torch.nn.functional.max_pool2d(torch.relu(self.norm(self.stem(x))), 3, 2, 1)
        x = torch.relu(self.same(x) + x)
        x = torch.relu(self.window(torch.relu(self.grouped(x))))
        return self.classes(x.mean((2, 3)))


def _encoder() -> Any:
    return torch.nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, activation="gelu")


MODELS = {"network": (Network, (2, 3, 37, 33)), "encoder": (_encoder, (2, 9, 32))}


@pytest.mark.parametrize("cpu", ["cpu", "avx2"])
@pytest.mark.parametrize("name", MODELS)
def test_a_model_in_mixed_precision_is_near_its_fp32(name: str, cpu: str) -> None:
    torch.manual_seed(0)
    make, shape = MODELS[name]
    options = Options(target=cpu, threads=2, dtype="bf16")
    made = driver.compile_source(make().eval(), options, None, (torch.randn(*shape),))
    assert made.artifact.certificate["precision"] == "bf16"
    assert "mixed-precision,pack-weights" in made.artifact.pipeline
    assert all(str(spec.dtype) == "float32" for spec in made.artifact.outputs)
    assert any(array.dtype == BF16 for array in made.artifact.stored().values())
    (agreement,) = made.report.agreement
    assert agreement["cosine"] > REDUCED["bf16"].cosine
    assert agreement["max_abs"] > 0


def test_a_model_of_bfloat16_is_compiled_as_it_is() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 9, 32).to(torch.bfloat16)
    made = driver.compile_source(_encoder().eval().to(torch.bfloat16), Options(), None, (x,))
    assert made.artifact.outputs[0].dtype == "bfloat16"
    assert made.artifact.certificate["precision"] == "bf16"


class Normalised(torch.nn.Module):
    """A convolution with a batch norm and a bias that cannot fold away before it is imported."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 8, 3, padding=1, stride=2)
        self.norm = torch.nn.BatchNorm2d(8)
        self.head = torch.nn.Linear(8, 5)

    def forward(self, x: Any) -> Any:
        maps = torch.relu(self.norm(self.conv(x)))
        return self.head(torch.nn.functional.max_pool2d(maps, 3, 2, 1).amax((2, 3)))


@pytest.mark.parametrize("verify", [pytest.param("each", marks=pytest.mark.slow), "end"])
def test_a_convolutional_model_of_bfloat16_is_verified(verify: Any) -> None:
    torch.manual_seed(0)
    model = Normalised().eval().to(torch.bfloat16)
    x = torch.randn(2, 3, 13, 11).to(torch.bfloat16)
    made = driver.compile_source(model, Options(verify=verify), None, (x,))
    assert made.artifact.outputs[0].dtype == "bfloat16"
    assert made.artifact.certificate["precision"] == "bf16"


def _onnx_model(nodes: list[Any], dtype: int, opset: int, **weights: Array) -> Any:
    values = [
        helper.make_tensor(name, TensorProto.BFLOAT16, w.shape, w.astype(BF16).tobytes(), raw=True)
        for name, w in weights.items()
    ]
    x = helper.make_tensor_value_info("x", dtype, (2, 6, 9, 7))
    y = helper.make_tensor_value_info("y", dtype, None)
    graph = helper.make_graph(nodes, "g", [x], [y], values)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def test_an_onnx_model_that_computes_in_bfloat16_inside_is_held_to_its_precision() -> None:
    node = helper.make_node
    nodes = [
        node("Cast", ["x"], ["narrow"], to=TensorProto.BFLOAT16),
        node("MatMul", ["narrow", "w"], ["product"]),
        node("Add", ["product", "b"], ["sum"]),
        node("Softmax", ["sum"], ["shares"]),
        node("Cast", ["shares"], ["y"], to=TensorProto.FLOAT),
    ]
    draw = np.random.default_rng(0)
    w, b = draw.standard_normal((7, 33)), draw.standard_normal(33)
    model = _onnx_model(nodes, TensorProto.FLOAT, 21, w=w, b=b)
    made = driver.compile_source(model, Options())
    assert made.artifact.certificate["precision"] == "bf16"


@pytest.mark.parametrize(("opset", "valid"), [(22, True), (21, False)])
def test_an_onnx_convolution_of_bfloat16_needs_the_opset_that_has_it(
    opset: int, valid: bool
) -> None:
    w = np.random.default_rng(0).standard_normal((5, 6, 3, 3))
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])]
    model = _onnx_model(nodes, TensorProto.BFLOAT16, opset, w=w)
    if valid:
        assert driver.compile_source(model, Options()).artifact.outputs[0].dtype == "bfloat16"
        return
    with pytest.raises(ModelError, match=r"Conv.*bfloat16"):
        driver.compile_source(model, Options())


@pytest.mark.slow
def test_each_pass_of_mixed_precision_is_verified() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 13, 11)
    made = driver.compile_source(
        Normalised().eval(), Options(dtype="bf16", verify="each"), None, (x,)
    )
    assert made.artifact.certificate["precision"] == "bf16"


def test_what_rounds_too_much_is_refused() -> None:
    torch.manual_seed(0)
    options = Options(dtype="bf16", rtol=1e-7, atol=1e-7)
    x = torch.randn(3, 64)
    with pytest.raises(WrongAnswerError, match=r"differs from the reference .*: fp32 keeps more$"):
        driver.compile_source(torch.nn.Linear(64, 8), options, None, (x,))


def test_a_turned_vector_is_wrong_though_no_element_is() -> None:
    wanted = np.zeros(10_000, np.float32)
    wanted[0] = 1.0
    noise = np.float32(0.04) * np.where(np.arange(10_000) % 2, 1, -1).astype(np.float32)
    found = compare("y", wanted, wanted + noise, how=How(precision="bf16"))
    assert found.differing == 0
    assert not found.ok


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (Options(dtype="bf16", exact=True), "exact keeps"),
        (Options(dtype="bf16", pipeline="legalize"), "needs pack-weights"),
        (Options(dtype="int3"), "dtype .int3. is not known"),
    ],
)
def test_a_dtype_that_cannot_be_is_refused_at_once(options: Options, message: str) -> None:
    with pytest.raises(InputError, match=message):
        driver.compile_source("none.onnx", options)
