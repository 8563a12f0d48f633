"""The rows of `gpu.py` for whole models, here and by torch."""

from collections.abc import Iterator
from functools import partial
from typing import Any

from gpu_rows import Cells, Machine, Row, by_torch, error

NAMES = ("ResNet-50", "BERT-base", "ViT-B/16", "GPT-2 decode step")  # of `gpu_models.py`
# How models are computed, and when that is measured; `max-autotune` takes minutes.
WAYS = {
    "ours": 2,
    "torch.compile, reduce-overhead": 2,
    "ours with libraries": 3,
    "torch.compile, max-autotune": 4,
}


def models() -> Iterator[Row]:
    """Whole models in fp16, at batch 1 and 32; each peer in a row of its own."""
    for batch in (1, 32):
        for name in NAMES:
            if batch > 1 and "step" in name:
                continue
            for way, rank in WAYS.items():
                yield Row(
                    "models, fp16",
                    f"{name}, batch {batch}: {way}",
                    150,
                    partial(_model, name, batch, way),
                    rank if batch == 1 else rank + 5,
                )


def _model(name: str, batch: int, way: str, machine: Machine) -> Cells:
    import gpu_models
    import torch

    if machine.small:
        model, inputs = torch.nn.Linear(64, 64), (torch.randn(batch, 64),)
    else:
        model, inputs = gpu_models.made(name, batch)
    with torch.no_grad():
        right = model(*inputs)
        if way.startswith("torch"):
            call, arguments = _by_torch(model, inputs, way.partition(", ")[2], machine)
        else:
            call, arguments = _compiled_here(model, inputs, "libraries" in way, machine)
        found = error(call(*arguments), right)
        seconds = by_torch(call, arguments, machine)
    return {"ms": f"{seconds * 1e3:.3f}", "off by": f"{found:.0e}"}


def _by_torch(model: Any, inputs: Any, mode: str, machine: Machine) -> tuple[Any, Any]:
    import torch

    machine.wants_torch()
    half = torch.float32 if machine.dry else torch.float16
    model = model.to(machine.torch_device, half)
    arguments = [
        x.to(machine.torch_device, half if x.is_floating_point() else x.dtype) for x in inputs
    ]
    return torch.compile(model, mode="default" if machine.dry else mode), arguments


def _compiled_here(model: Any, inputs: Any, libraries: bool, machine: Machine) -> tuple[Any, Any]:
    import torch

    from hybridc.compiler import driver
    from hybridc.compiler.session import InferenceSession

    names = _libraries(machine) if libraries else ()
    artifact = driver.compile(
        torch.export.export(model, tuple(inputs)),
        target="cpu" if machine.dry else "cuda",
        dtype="fp32" if machine.dry else "fp16",
        backends=("tvm", *names),
        verify="off",
    )
    if machine.torch_device == "cpu":
        return InferenceSession(artifact), [x.numpy() for x in inputs]
    return InferenceSession(artifact), [x.to(machine.torch_device) for x in inputs]


def _libraries(machine: Machine) -> list[str]:
    """Those that can be used here.  Raises RuntimeError where there is none, and says why."""
    from hybridc.compiler.offload.backend import backends

    of_kind = [name for name, kind in backends().all() if kind.device == machine.here.kind]
    absent = {name: backends().load(name).missing() for name in of_kind}
    if all(absent.values()):
        raise RuntimeError("; ".join(absent.values()))
    return [name for name, why in absent.items() if not why]
