"""`torch.compile(backend=...)` for what lies on a GPU: as torch traces it there, and on a fake."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import fake_cuda
import pytest
from cuda_emulator import needs_compiler

from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.dynamo import torch_calls, torch_device, torch_region
from hybridc.compiler.dynamo.torch_freeze import freeze
from hybridc.compiler.errors import ModelError

torch = pytest.importorskip("torch")


def traced(function: Any, *args: Any) -> Any:
    """The graph of a function of tensors on a GPU, which need not be there."""
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.proxy_tensor import make_fx

    with FakeTensorMode() as mode:
        fakes = [torch.empty_like(mode.from_tensor(each), device="cuda") for each in args]
        graph = make_fx(function)(*fakes)
    (result,) = graph.graph.find_nodes(op="output")
    if not isinstance(result.args[0], tuple):
        result.args = ((result.args[0],),)
    return graph


def test_a_graph_of_a_gpu_is_read_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever operators are told of devices."""

    def function(x: Any) -> Any:
        steps = torch.arange(4, device=x.device) + torch.zeros(4, device=x.device)
        return x.to(torch.float64).to("cuda:0") * steps

    x = torch.randn(3, 4)
    graph = traced(function, x)
    assert "cuda" in graph.code
    gpu = torch.device("cuda", 0)
    monkeypatch.setattr(torch_device, "place", lambda _: gpu)
    frozen = freeze(graph, [x], set())
    assert frozen.device == gpu
    assert "cuda" not in frozen.module.code
    torch.testing.assert_close(frozen.module(x)[0], x.double() * torch.arange(4))


def attentions() -> list[Any]:
    """The operators of torch's three kernels, and what they compute."""
    aten, plain = torch.ops.aten, torch.nn.functional.scaled_dot_product_attention
    return [
        (
            lambda q, k, b: aten._scaled_dot_product_flash_attention(q, k, k, scale=0.5)[0],
            lambda q, k, b: plain(
                q, k.repeat_interleave(2, 1), k.repeat_interleave(2, 1), scale=0.5
            ),
        ),
        (
            lambda q, k, b: aten._scaled_dot_product_efficient_attention(q, q, q, b, False)[0],
            lambda q, k, b: plain(q, q, q, b),
        ),
        (
            lambda q, k, b: aten._scaled_dot_product_cudnn_attention(q, q, q, b, True)[0],
            lambda q, k, b: plain(q, q, q, b),
        ),
        (
            lambda q, k, b: aten._scaled_dot_product_flash_attention(q, q, q, 0.0, True)[0],
            lambda q, k, b: plain(q, q, q, is_causal=True),
        ),
    ]


@pytest.mark.parametrize("number", range(4))
def test_attention_of_a_gpu_is_compiled(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever kernel torch would take; the answer it is compared with is the CPU's."""
    operator, plain = attentions()[number]
    given = [torch.randn(2, 4, 7, 8), torch.randn(2, 2, 6, 8), torch.randn(2, 4, 7, 7)]
    graph = traced(operator, *given)
    monkeypatch.setattr(torch_device, "place", lambda _: torch.device("cuda", 0))
    frozen = freeze(graph, given, set())
    inputs = tuple(given[place] for place in frozen.inputs)
    torch.testing.assert_close(frozen.module(*inputs)[0], plain(*given))
    session = torch_region.session(frozen.module, inputs, Options(threads=1))
    got = torch_calls.run(session, torch.device("cpu"), inputs)
    torch.testing.assert_close(got[0], plain(*given), rtol=1e-4, atol=1e-5)


def on(*devices: str) -> Any:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        return [torch.empty(2, device=device) for device in devices]


def test_tensors_on_several_devices_are_refused() -> None:
    assert torch_device.common(on("cuda:0", "cuda:0")).type == "cuda"
    assert torch_device.common([*on("cuda:0"), torch.tensor(1.0)]).type == "cuda"
    with pytest.raises(ModelError, match=r"tensors are on \S+ and on \S+; move"):
        torch_device.common([*on("cuda:0"), torch.ones(2)])
    with pytest.raises(ModelError, match=r"tensors are on \S+ and on \S+; move"):
        torch_device.common(on("cuda:0"), [torch.tensor(1.0)])  # torch would leave it on the CPU
    with pytest.raises(ModelError, match="a tensor is on cuda:1; compiled code runs on cuda:0"):
        torch_device.common(on("cuda:1"))
    with pytest.raises(ModelError, match="a tensor is on meta; only the CPU and NVIDIA"):
        torch_device.common([torch.ones(2, device="meta")])


def test_the_target_is_where_tensors_are() -> None:
    gpu, cpu = torch.device("cuda", 0), torch.device("cpu")
    assert torch_device.options_for(gpu, Options()).target == "cuda"
    assert torch_device.options_for(cpu, Options()).target == "cpu"
    assert torch_device.options_for(gpu, Options(target="sm_90a")).target == "sm_90a"
    for device, target in ((cpu, "cuda"), (gpu, "avx2")):
        with pytest.raises(ModelError, match=f"its tensors are on .*, and its target is {target}"):
            torch_device.options_for(device, Options(target=target))


_WHOLE = """
import warnings
import torch
from hybridc.compiler.runtime import session
from hybridc.compiler.cuda import callers
from hybridc.compiler.dynamo import torch_device, torch_region
from hybridc.compiler.dynamo.torch_backend import torch_backend

warnings.simplefilter("error")
gpu = torch.device("cuda", 0)
torch_device.place = lambda _: gpu  # the fake's memory is the host's
session.to_library = lambda _, tensor, __: torch.from_numpy(tensor.numpy())
callers.allocates = lambda _: False  # nor has torch memory on it
model = torch.nn.Sequential(torch.nn.Linear(40, 48), torch.nn.GELU(), torch.nn.Linear(48, 16))
made = torch.compile(model, backend=torch_backend)
with torch.no_grad():
    for call in range(4):
        x = torch.randn(48, 40).T[:, 3:19].T if call % 2 else torch.randn(16, 40)
        torch.testing.assert_close(made(x), model(x), rtol=1e-4, atol=1e-5)
(opened,) = set(torch_region.all_sessions().by_content.values())
assert not opened._place.on_host
print("done")
"""


@needs_compiler
def test_a_model_on_a_gpu_is_compiled_for_it(tmp_path: Path) -> None:
    """From the second call on its kernels compute it; where it cannot, a warning would fail."""
    done = subprocess.run(
        [sys.executable, "-c", _WHOLE],
        cwd=Path(__file__).parent,
        env=fake_cuda.environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.stdout.strip().endswith("done"), done.stdout + done.stderr
