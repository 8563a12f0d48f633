"""The rows of `gpu.py` for whole models, here and by torch."""

import importlib
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from gpu_rows import Cells, Machine, Row, by_torch, error, profile

NAMES = ("BERT-base", "GPT-2 decode step", "ViT-B/16", "ResNet-50")  # of `gpu_models.py`
_FILE = "model.hyb"
_SECONDS = 150
_COMPILE = "torch.compile, "


@dataclass(frozen=True)
class Way:
    """How a model is computed, and the ranks of that at batch 1 and 32."""

    name: str
    ranks: tuple[int, int]
    ahead: bool = False


# `max-autotune` compiles its candidates ahead, for a minute and more, and times them again alone.
WAYS = (
    Way("ours", (0, 1), ahead=True),
    Way(f"{_COMPILE}reduce-overhead", (0, 1), ahead=True),
    Way(f"{_COMPILE}max-autotune", (5, 7), ahead=True),
    Way("ours with libraries", (8, 9)),
)


def models() -> Iterator[Row]:
    """Whole models in fp16, at batch 1 and 32; each peer in a row of its own."""
    for batch in (1, 32):
        for name in NAMES:
            if batch > 1 and "step" in name:
                continue
            for way in WAYS:
                yield _row(name, batch, way)


def _row(name: str, batch: int, way: Way) -> Row:
    warms = way.ahead and way.name.startswith(_COMPILE)
    prepare: Callable[[Machine, Path], object] | None = None
    if warms:
        prepare = partial(_warmed, name, batch, way.name)
    elif way.ahead:
        prepare = partial(_compiled, name, batch)
    measure = partial(_measured, name, batch, way.name)
    title = f"{name}, batch {batch}: {way.name}"
    return Row("models, fp16", title, _SECONDS, measure, way.ranks[batch > 1], prepare, warms)


@lru_cache(1)
def _made(name: str, batch: int, small: bool) -> tuple[Any, Any]:
    """The model, or for a trial one of its kind that is small; and inputs.  Rows share them."""
    import gpu_models

    return gpu_models.made(name, batch, small)


@lru_cache(1)
def _right(name: str, batch: int, small: bool, where: str) -> Any:
    """The model's answer in fp32, by torch's GPU where it has one; TF32 is not accurate enough."""
    import torch

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    model, inputs = _made(name, batch, small)
    return deepcopy(model).to(where)(*(x.to(where) for x in inputs)).cpu()


def _compiled(name: str, batch: int, machine: Machine, folder: Path) -> None:
    """Our artifact in the folder, of our own kernels."""
    _artifact(*_made(name, batch, machine.small), (), machine).save(folder / _FILE)


def _warmed(name: str, batch: int, way: str, machine: Machine, _: Path) -> None:
    """Leave what torch compiles in its cache."""
    import torch

    with torch.no_grad():
        call, given = _by_torch(*_made(name, batch, machine.small), way, machine)
        call(*given)


def _measured(name: str, batch: int, way: str, machine: Machine, folder: Path) -> Cells:
    import torch

    model, inputs = _made(name, batch, machine.small)
    with torch.no_grad():
        right = _right(name, batch, machine.small, machine.torch_device)
        if way.startswith(_COMPILE):
            call, given = _by_torch(model, inputs, way, machine)
        else:
            call, given = _session(model, inputs, way, machine, folder)
        found = error(call(*given), right)
        seconds = by_torch(call, given, machine)
        if machine.details:
            profile(call, given, machine.details / f"{_slug(f'{name} {batch} {way}')}.txt")
    return {"ms": f"{seconds * 1e3:.3f}", "off by": f"{found:.0e}"}


def _slug(name: str) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in name).split())


def _by_torch(model: Any, inputs: Any, way: str, machine: Machine) -> tuple[Any, Any]:
    import torch

    machine.wants_torch()
    mode = way.removeprefix(_COMPILE)
    if "autotune" in mode:  # what it timed beside others, it forgets; compiled kernels it keeps
        inductor = importlib.import_module("torch._inductor.config")
        inductor.autotune_local_cache = inductor.fx_graph_cache = False
    half = torch.float32 if machine.dry else torch.float16
    torch.compiler.reset()  # of rows before, of the same code
    model = deepcopy(model).to(machine.torch_device, half)
    given = [x.to(machine.torch_device, half if x.is_floating_point() else x.dtype) for x in inputs]
    return torch.compile(model, mode="default" if machine.dry else mode), given


def _session(
    model: Any, inputs: Any, way: str, machine: Machine, folder: Path
) -> tuple[Any, list[Any]]:
    """A session of what was compiled ahead, or with libraries of what is compiled now."""
    from hybridc.compiler.runtime.session import InferenceSession

    if "libraries" in way:
        session = InferenceSession(_artifact(model, inputs, _libraries(machine), machine))
    else:
        session = InferenceSession(folder / _FILE)
    if machine.torch_device == "cpu":
        return session, [x.numpy() for x in inputs]
    return session, [x.to(machine.torch_device) for x in inputs]


def _artifact(model: Any, inputs: Any, libraries: tuple[str, ...], machine: Machine) -> Any:
    import torch

    from hybridc.compiler import driver

    return driver.compile(
        torch.export.export(model, tuple(inputs)),
        target="cpu" if machine.dry else "cuda",
        dtype="fp32" if machine.dry else "fp16",
        backends=("tvm", *libraries),
        verify="off",
    )


def _libraries(machine: Machine) -> tuple[str, ...]:
    """Those that can be used here.  Raises RuntimeError where there is none, and says why."""
    from hybridc.compiler.offload.backend import backends

    of_kind = [name for name, kind in backends().all() if kind.device == machine.here.kind]
    absent = {name: backends().load(name).missing() for name in of_kind}
    if all(absent.values()):
        raise RuntimeError("; ".join(dict.fromkeys(absent.values())))
    return tuple(name for name, why in absent.items() if not why)
