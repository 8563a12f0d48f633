"""What every backend keeps; a new one inherits these tests by existing.

One in a file of its own is tested by `pytest tests/test_backends.py --plugin FILE`.
"""

import json
from operator import attrgetter
from typing import Any

import backend_cases
import numpy as np
import plugged
import pytest
import tvm

from hybridc.compiler import plugin, target
from hybridc.compiler.backends import _torch
from hybridc.compiler.cuda import runtime
from hybridc.compiler.errors import ArtifactError, InputError
from hybridc.compiler.interfaces import NotApplicable
from hybridc.compiler.ir.evaluate import evaluate
from hybridc.compiler.model import random_feed
from hybridc.compiler.offload import backend as backends
from hybridc.compiler.offload.choice import alone
from hybridc.compiler.offload.subgraph import Subgraph
from hybridc.compiler.runtime.tensors import empty, to_numpy, to_tensor
from hybridc.compiler.tuning.candidates import answers

CASES = backend_cases.modules()
CATALOGUE = backends.backends(plugged.FILES)
NAMES = plugged.under_test(CATALOGUE.names())
BACKENDS = [
    pytest.param(name, marks=[pytest.mark.gpu] if CATALOGUE.load(name).device == "cuda" else [])
    for name in NAMES
]
# What oneDNN takes of the cases on a CPU; all of them.
TAKEN = {"onednn": set(CASES)}


def able(name: str) -> backends.Backend:
    """The backend, where its library is here."""
    made = CATALOGUE.create(name)
    if absent := made.missing():
        pytest.skip(absent)
    return made


def here(backend: backends.Backend) -> target.Target:
    """This host as a target of the backend's kind."""
    return target.parse(backend.device)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", BACKENDS)
def test_what_a_backend_takes_it_computes_as_tvm_does(name: str, case: str) -> None:
    made = able(name)
    found = backend_cases.found(CASES[case])
    if isinstance(made.supports(found.graph, here(made)), NotApplicable):
        pytest.skip("it does not take this")
    module, specs = alone(found)
    device = runtime.device(0) if made.device == "cuda" else None
    call = made.build(found.graph, 2)
    for seed in (0, 1):  # the second call has what the first one prepared
        feed = random_feed(specs, seed)
        if case == "bytes":
            draw = np.random.default_rng(seed)
            feed = {name: draw.integers(0, 256, x.shape, "uint8") for name, x in feed.items()}
        (right,) = evaluate(module, list(feed.values()))
        got = _called(call, found, feed, device)
        depth = found.graph.flops // (2 * right.size)
        assert answers.difference(got, right, depth, quantised=False) is None


@pytest.mark.parametrize(
    ("on_host", "products"),
    [(True, ("mkldnn.conv", "mkldnn.matmul")), (False, ("cudnn.conv", "cuda.matmul"))],
)
def test_fp32_is_not_rounded_whatever_the_program_wants_of_its_own(
    on_host: bool, products: tuple[str, str]
) -> None:
    torch = pytest.importorskip("torch")
    of: list[Any] = [attrgetter(name)(torch.backends) for name in products]
    before = [product.fp32_precision for product in of]
    try:
        for product in of:
            product.fp32_precision = "tf32"
        with _torch.unrounded(on_host):
            assert {product.fp32_precision for product in of} == {"ieee"}
        assert {product.fp32_precision for product in of} == {"tf32"}
        if on_host:
            assert _seen_by_a_call(of[1]) == "ieee"
    finally:
        for product, how in zip(of, before, strict=True):
            product.fp32_precision = how


def _seen_by_a_call(product: Any) -> str:
    """The precision in which a call has float32 multiplied."""
    seen = ""

    def run(values: Any, _: Any, result: Any) -> Any:
        nonlocal seen
        seen = product.fp32_precision
        return result

    found = backend_cases.found(CASES["dense"])
    call = _torch.TorchCall(found.graph, _torch.Head(1, lambda _: None, run), 1)
    specs = (*found.graph.operands, found.graph.result)
    call(*(to_tensor(empty(spec.shape, np.dtype(spec.dtype))) for spec in specs))
    return seen


@pytest.mark.parametrize("behind", [False, True])
def test_products_of_16_bits_may_be_asked_for_in_float32(behind: bool) -> None:
    """As `mixed-precision` has them, with a bias of float32; what is for GPUs runs on a CPU too."""
    pytest.importorskip("torch")
    draw, op = np.random.default_rng(4), backend_cases.op
    w = draw.standard_normal((32, 16)).astype("float16")
    b = draw.standard_normal(16).astype("float32")

    def build(x: Any) -> Any:
        made = op.matmul(x, tvm.relax.const(w), out_dtype="float32")
        return op.nn.relu(op.add(made, tvm.relax.const(b))) if behind else made

    found = backend_cases.found(backend_cases.made(build, ((24, 32), "float16")))
    library: Any = CATALOGUE.create("cublaslt")
    assert library.supports(found.graph, target.parse("nvidia/h200")) is None
    _, specs = alone(found)
    feed = random_feed(specs)
    got = _called(_torch.TorchCall(found.graph, library.head(found.graph), 1), found, feed, None)
    right = next(iter(feed.values())).astype("float32") @ w.astype("float32")
    right = np.maximum(right + b, 0) if behind else right
    np.testing.assert_allclose(got, right, rtol=2e-3, atol=2e-3)


def _called(call: backends.Call, found: Any, feed: Any, device: Any) -> Any:
    inputs = iter(feed.values())
    arrays = [
        expr.value.numpy() if operand.constant else next(inputs)
        for expr, operand in zip(found.operands, found.graph.operands, strict=True)
    ]
    result = empty(found.graph.result.shape, np.dtype(found.graph.result.dtype))
    result.reshape(-1).view(np.uint8)[:] = 255  # NaN: a hole shows
    tensors = [to_tensor(np.ascontiguousarray(a).copy().reshape(a.shape)) for a in arrays]
    into = to_tensor(result)
    if device is None:
        call(*tensors, into)
        return result
    moved = into.copyto(device)
    call(*(tensor.copyto(device) for tensor in tensors), moved)
    device.sync()
    return to_numpy(moved.copyto(tvm.cpu()), result.dtype)


@pytest.mark.parametrize("name", NAMES)
def test_a_backend_says_why_it_does_not_take_something(name: str) -> None:
    made = CATALOGUE.create(name)
    target_of = target.parse("cpu" if made.device == "cpu" else "nvidia/h100")
    taken = set[str]()
    for case, module in CASES.items():
        why = made.supports(backend_cases.found(module).graph, target_of)
        assert why is None or why.reason
        if why is None:
            taken.add(case)
    assert taken
    assert taken >= TAKEN.get(name, set())


@pytest.mark.parametrize("name", NAMES)
def test_a_backend_is_a_plug_in_that_says_what_it_needs(name: str) -> None:
    kind = CATALOGUE.load(name)
    assert plugin.name_of(kind) == name
    assert vars(kind)["__dataclass_params__"].frozen
    assert (vars(kind)["__doc__"] or "").split("\n")[0].endswith(".")
    assert kind.packages
    assert kind.device in ("cpu", "cuda")


@pytest.mark.parametrize("name", NAMES)
def test_more_work_costs_more_by_analysis(name: str) -> None:
    made = CATALOGUE.create(name)
    where = target.parse("cpu" if made.device == "cpu" else "nvidia/h100")
    small, large = (
        backend_cases.found(
            backend_cases.made(
                lambda x, d=depth: backend_cases.op.matmul(x, backend_cases.weight(d, 512)),
                ((512, depth), "float32"),
            )
        ).graph
        for depth in (64, 4096)
    )
    assert made.overhead < made.cost(small, where) < made.cost(large, where)


@pytest.mark.parametrize("case", CASES)
def test_a_subgraph_survives_the_manifest(case: str) -> None:
    graph = backend_cases.found(CASES[case]).graph
    again = Subgraph.of_json(json.loads(json.dumps(graph.to_json())))
    assert again == graph
    assert again.key == graph.key


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data.pop("steps"),
        lambda data: data["steps"].clear(),
        lambda data: data["steps"][0].update(operands=[9]),
        lambda data: data["operands"][0].update(shape=[-1, 2]),
        lambda data: data["operands"][0].update(shape="x"),
        lambda data: data.update(steps=7),
    ],
)
def test_a_damaged_subgraph_is_one_error(spoil: Any) -> None:
    data = json.loads(json.dumps(backend_cases.found(CASES["dense"]).graph.to_json()))
    spoil(data)
    with pytest.raises(ArtifactError, match="a subgraph is malformed"):
        Subgraph.of_json(data)


@pytest.mark.parametrize(
    ("names", "device", "said"),
    [
        (("tvm", "onednm"), "cpu", "no backend is named 'onednm'; did you mean 'onednn'?"),
        (("cudnn",), "cpu", "backend cudnn is not for target kind cpu; it has tvm, onednn"),
        (("onednn",), "cuda", "backend onednn is not for target kind cuda; it has tvm, cublaslt"),
    ],
)
def test_a_backend_that_is_not_there_is_one_line(
    names: tuple[str, ...], device: str, said: str
) -> None:
    with pytest.raises(InputError) as raised:
        backends.select(names, device)
    assert said in str(raised.value)


def test_our_own_kernels_need_no_backend() -> None:
    assert backends.select(("tvm",), "cpu") == ()
