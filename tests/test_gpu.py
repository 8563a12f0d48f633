"""What needs a GPU: kernels and models on the device.  `pytest -m gpu` runs these alone."""

from typing import Any

import numpy as np
import pytest
from cuda_kernels import close, convolution, feed, product, reference, sample
from cuda_models import residual_network, transformer
from kernel_builders import floats, op, operator
from test_cuda_attention import CASES as ATTENTION
from test_cuda_products import BYTES
from test_cuda_windows import WINDOWS

from hybridc.compiler import driver, frontend, pipeline, target
from hybridc.compiler.assurance.contract import Contract
from hybridc.compiler.build import compile_kernel
from hybridc.compiler.configuration import plans
from hybridc.compiler.interfaces import NotApplicable
from hybridc.compiler.model import random_feed
from hybridc.compiler.session import InferenceSession
from hybridc.compiler.tensors import to_numpy, to_tensor

pytestmark = pytest.mark.gpu
KERNELS: dict[str, Any] = {
    "relu": operator(op.nn.relu, *floats([1000, 1003])),
    "softmax": operator(lambda x: op.nn.softmax(x, -1), *floats([37, 1000])),
    "layer norm": operator(
        lambda x, g, b: op.nn.layer_norm(x, g, b, [-1]), *floats([64, 768], [768], [768])
    ),
    "transpose": operator(lambda x: op.permute_dims(x, [0, 2, 1]), *floats([3, 70, 90])),
    "sum": operator(lambda x: op.sum(x, [0]), *floats([300, 257])),
    "fp32 product": product([130, 300], [300, 257]),
    "fp16 product": product([130, 304], [304, 264], "float16"),
    "bf16 product": product([130, 304], [304, 264], "bfloat16"),
    "fp16 convolution": convolution([2, 14, 14, 64], [96, 3, 3, 64], "float16", padding=(1, 1)),
    "fp16 attention": ATTENTION["plain"],
    "bf16 attention with a mask": ATTENTION["mask of columns"],
    "causal attention": ATTENTION["causal"],
    "attention of one query": ATTENTION["one query"],
    "fp16 product of one row": product([1, 520], [520, 264], "float16"),
    "product of bytes": BYTES["dense"],
    "convolution of bytes": BYTES["convolution"],
    "depthwise convolution": WINDOWS["depthwise"],
    "fp16 product of a long depth": product([64, 4096], [4096, 96], "float16"),
}
SHARES = {"fp32": 1e-4, "tf32": 5e-3, "fp16": 5e-3, "bf16": 3e-2}


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_on_the_device_at_several_points(name: str) -> None:
    import tvm

    here = target.parse("cuda")
    device = tvm.cuda()
    for func in KERNELS[name](here):
        arrays = feed(func)
        wanted = reference(func, arrays)
        for rule in pipeline.rules(device="cuda"):
            match: Any = rule.match(func, here)
            if isinstance(match, NotApplicable):
                continue
            for point in sample(rule.knobs(match), rule.default(match, here), 3):
                made = compile_kernel(rule.schedule(match, point).mod["main"], here)
                tensors = [to_tensor(array).copyto(device) for array in arrays]
                made["main"](*tensors)
                for tensor, right in zip(tensors, wanted, strict=True):
                    got = to_numpy(tensor.copyto(tvm.cpu()), right.dtype)
                    close(got, right, 1e-4, f"{type(rule).__name__} {point}")


@pytest.mark.parametrize("dtype", SHARES)
@pytest.mark.parametrize("build", [residual_network, transformer])
def test_models_answer_as_their_reference(build: Any, dtype: str) -> None:
    source = build()
    made = driver.compile(source, target="cuda", dtype=dtype)
    model = frontend.load(source, shapes={}, fallback=False)
    given = random_feed(model.inputs)
    got = InferenceSession(made).run(None, given)
    for have, want in zip(got, model.reference(given), strict=True):
        limit = SHARES[dtype] * float(np.abs(want).max())
        np.testing.assert_allclose(have, want, rtol=0, atol=limit)


def test_a_contract_is_measured_on_the_device() -> None:
    contract = Contract(max_latency="1s", min_accuracy={"cosine": 0.999})
    made = driver.compile_source(
        residual_network(), plans.Options(target="cuda", contract=contract)
    )
    assert not made.broken
    assert made.artifact.certificate["kept"]


def test_tensors_on_the_device_are_taken_and_given_without_a_copy() -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("this PyTorch has no CUDA")
    session = InferenceSession(driver.compile(residual_network(), target="cuda"))
    image = torch.randn(1, 3, 12, 12, device="cuda")
    logits = session(image)
    assert logits.is_cuda
    (wanted,) = session.run(None, {"image": image.cpu().numpy()})
    np.testing.assert_allclose(logits.cpu().numpy(), wanted, rtol=1e-5, atol=1e-5)
