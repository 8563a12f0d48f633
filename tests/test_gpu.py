"""What needs a GPU: kernels and models on the device.  `pytest -m gpu` runs these alone."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cuda_kernels import close, convolution, feed, product, reference, sample
from cuda_models import residual_network, transformer
from kernel_builders import floats, op, operator
from test_cuda_attention import CASES as ATTENTION
from test_cuda_products import BYTES
from test_cuda_weights import made as packed
from test_cuda_wgmma import POINTS
from test_cuda_windows import WINDOWS

from hybridc.compiler import driver, frontend, pipeline, target
from hybridc.compiler.assurance.contract import Contract
from hybridc.compiler.building.build import compile_kernel
from hybridc.compiler.configuration import plans
from hybridc.compiler.cuda import runtime
from hybridc.compiler.interfaces import NotApplicable
from hybridc.compiler.log.access import open_log
from hybridc.compiler.model import random_feed
from hybridc.compiler.offload.backend import backends
from hybridc.compiler.runtime.session import InferenceSession
from hybridc.compiler.runtime.tensors import to_numpy, to_tensor
from hybridc.schedules.cuda_wgmma_matmul import CudaWgmmaMatmul

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
# How far results may be off, of the largest: weights of attention are of 16 bits between products.
_WEIGHED, _SHARE = 2e-3, 1e-4
SHARES = {"fp32": 1e-4, "tf32": 5e-3, "fp16": 5e-3, "bf16": 3e-2}


def at_points(func: Any, arrays: list[Any], wanted: list[Any], points: int, share: float) -> None:
    """What every rule that takes a kernel computes, at its default and so many points drawn."""
    here = target.parse("cuda")
    for rule in pipeline.rules(device="cuda"):
        match: Any = rule.match(func, here)
        if isinstance(match, NotApplicable):
            continue
        for point in sample(rule.knobs(match), rule.default(match, here), points):
            at(rule, match, point, (arrays, wanted, share))


def at(rule: Any, match: Any, point: Any, what: tuple[list[Any], list[Any], float]) -> None:
    """What a rule computes at one point; only arrays of which something is wanted are compared."""
    import tvm

    arrays, wanted, share = what
    made = compile_kernel(rule.schedule(match, point).mod["main"], target.parse("cuda"))
    tensors = [to_tensor(array).copyto(runtime.device(0)) for array in arrays]
    made["main"](*tensors)
    for tensor, right in zip(tensors[-len(wanted) :], wanted, strict=True):
        got = tensor.copyto(tvm.cpu())
        close(
            to_numpy(got, np.dtype(str(got.dtype))), right, share, f"{type(rule).__name__} {point}"
        )


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_on_the_device_at_several_points(name: str) -> None:
    for func in KERNELS[name](target.parse("cuda")):
        arrays = feed(func)
        share = _WEIGHED if "attention" in name else _SHARE
        at_points(func, arrays, reference(func, arrays), 3, share)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("rows", [1, 7, 20, 200])
def test_packed_weights_on_the_device(rows: int, bits: int, dtype: str) -> None:
    """Few rows on CUDA cores or tensor cores, many by tiles that are unpacked on their way."""
    here = target.parse("cuda")
    func, arrays, right = packed((rows,), 768, 520, bits, 32, dtype)
    pairs = ((rule, rule.match(func, here)) for rule in pipeline.rules(device="cuda"))
    rule, found = next(pair for pair in pairs if not isinstance(pair[1], NotApplicable))
    match: Any = found
    for point in sample(rule.knobs(match), rule.default(match, here), 1):
        at(rule, match, point, (arrays, [right], _SHARE))


@pytest.mark.parametrize("knobs", POINTS, ids=lambda knobs: f"{knobs['rows']}x{knobs['columns']}")
def test_tiles_of_every_width_on_the_device(knobs: Any) -> None:
    here, rule = target.parse("cuda"), CudaWgmmaMatmul()
    (func,) = product([600, 200], [200, 520], "float16")(here)
    match: Any = rule.match(func, here)
    if isinstance(match, NotApplicable):
        pytest.skip(match.reason)
    arrays = feed(func)
    point = rule.canonical(match, {**rule.default(match, here), **knobs})
    at(rule, match, point, (arrays, reference(func, arrays), _SHARE))


def test_nan_passes_on_the_device() -> None:
    """By the instruction that keeps it, in float32, and by comparisons in float16."""
    for dtype in ("float32", "float16"):
        (func,) = operator(op.nn.relu, ((4, 64), dtype))(target.parse("cuda"))
        arrays = feed(func)
        arrays[0][1, ::3] = np.nan
        at_points(func, arrays, [np.maximum(arrays[0], 0)], 1, 0)


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


def test_calls_are_replayed_as_graphs_with_answers_of_their_own() -> None:
    source = residual_network()
    session: Any = InferenceSession(driver.compile(source, target="cuda"))
    model = frontend.load(source, shapes={}, fallback=False)
    feeds = [random_feed(model.inputs, seed) for seed in range(6)]
    found = [session.run(None, feed) for feed in feeds]
    graphs: Any = session._main
    assert not graphs.notes
    assert any(known.graph is not None for known in graphs._known.values())
    for given, got in zip(feeds, found, strict=True):
        for have, want in zip(got, model.reference(given), strict=True):
            limit = 1e-4 * float(np.abs(want).max())
            np.testing.assert_allclose(have, want, rtol=0, atol=limit)


def test_the_same_tensors_on_the_device_are_replayed() -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("this PyTorch has no CUDA")
    session = InferenceSession(driver.compile(residual_network(), target="cuda"))
    image = torch.randn(1, 3, 12, 12, device="cuda")
    first = [session(image).clone() for _ in range(5)]
    image.mul_(2.0)  # in its place: a graph reads what lies there now
    (wanted,) = session.run(None, {"image": image.cpu().numpy()})
    np.testing.assert_allclose(session(image).cpu().numpy(), wanted, rtol=1e-4, atol=1e-4)
    for each in first[1:]:
        torch.testing.assert_close(each, first[0])


def test_a_session_uploads_its_weights_once() -> None:
    made = driver.compile(residual_network(), target="cuda")
    session: Any = InferenceSession(made)
    weights: Any = session._last[-1]
    assert {str(tensor.device) for tensor in weights} == {str(session._place.device)}


def test_kernels_of_libraries_are_chosen_and_agree(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    names = [name for name, kind in backends().all() if kind.device == "cuda"]
    able = [name for name in names if not backends().load(name).missing()]
    if not able:
        pytest.skip("no library for GPUs is here")
    source = transformer()
    model = frontend.load(source, shapes={}, fallback=False)
    made = driver.compile(source, target="cuda", dtype="fp16", backends=("tvm", *able))
    made.save(tmp_path / "m.hyb")
    session = InferenceSession(tmp_path / "m.hyb")
    for seed in range(4):
        given = random_feed(model.inputs, seed)
        for have, want in zip(session.run(None, given), model.reference(given), strict=True):
            limit = SHARES["fp16"] * float(np.abs(want).max())
            np.testing.assert_allclose(have, want, rtol=0, atol=limit)


def test_kernels_are_tuned_on_the_device(tmp_path: Path) -> None:
    from hybridc.cli import main as entry

    log = str(tmp_path / "log.sqlite")
    digits = str(Path(__file__).parent.parent / "examples" / "digits" / "digits.onnx")
    assert entry.run(["tune", digits, "--target", "cuda", "--trials", "4", "--log", log]) == 0
    with open_log(log) as opened:
        records = list(opened.records())
    assert records
    good = [record for record in records if record.verdict == "ok"]
    assert good
    assert all(seconds > 0 for record in good for seconds in record.seconds)


_ASTRAY = """
from hybridc.compiler.cuda.link import Link
from hybridc.compiler.tuning.candidates.gpu_arguments import LostGpuError, told
link = Link(0)
try:
    with told():
        link.clear(64, 2**20)
        link.finish()
except LostGpuError:
    print("lost")
"""


def test_a_fault_of_a_candidate_is_its_own() -> None:
    """What writes where nothing is costs its process the GPU, or is refused; nobody else."""
    from hybridc.compiler.cuda.link import Link

    command = [sys.executable, "-c", _ASTRAY]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.stdout.strip() == "lost" or "CandidateError" in done.stderr
    Link(0).finish()
