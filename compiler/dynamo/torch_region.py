"""A functional graph of ATen operators, compiled at its first call; the inner half of the backend.

Weights are constants of the compiled code.  They may change all the same (an optimiser, a loaded
state), which torch counts in each tensor's version: one that changed is from then on an input.
"""

import dataclasses
import threading
import weakref
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

from hybridc.compiler import driver
from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.dynamo import torch_device
from hybridc.compiler.dynamo.torch_calls import Calls
from hybridc.compiler.dynamo.torch_freeze import freeze, ordinary, pairs
from hybridc.compiler.errors import (
    ContractError,
    HybridcError,
    ModelError,
    PassError,
    WrongAnswerError,
)
from hybridc.compiler.frontends import torch_model
from hybridc.compiler.frontends.torch_reference import to_numpy
from hybridc.compiler.model import Array
from hybridc.compiler.runtime.session import InferenceSession


class Region:
    """The compiled graph, called with a list of its arguments as AOTAutograd does.

    A call for which no code is there computes the graph eagerly and keeps its arguments, for
    `compile` to be called once AOTAutograd is done: nothing can be traced within its run time.
    """

    _boxed_call = True  # AOTAutograd's word for arguments in a list

    def __init__(self, graph: Any, weights: Sequence[Any], options: Options) -> None:
        self._graph, self._options = _reshaping(graph), options
        self._weights = {tensor.data_ptr() for tensor in weights if _counted(tensor)}
        self._ready: Calls | None = None
        self._waiting: list[Any] | None = None

    def __call__(self, args: list[Any]) -> Sequence[Any]:
        """Compute the outputs; `args` is emptied, so that its tensors may be freed."""
        tensors = list(args)
        args.clear()
        if self._ready is None or self._ready.frozen.changed(tensors):
            self._waiting = tensors
            with without_autocast():
                eager: Sequence[Any] = self._graph(*tensors)
            return eager
        return self._ready(tensors)

    @property
    def waits(self) -> bool:
        """Whether the last call found no code."""
        return self._waiting is not None

    def compile(self) -> None:
        """Make code for the call that found none.

        Raises HybridcError if the graph is not supported, or computes something else than torch.
        """
        import torch

        args, self._waiting = self._waiting, None
        if args is None:  # another thread's call has been served
            return
        if self._ready is not None:  # what changed once may change again
            self._weights -= self._ready.frozen.changed(args)
        with torch.inference_mode(False), torch.no_grad(), without_autocast():
            frozen = freeze(self._graph, args, self._weights)
            options = torch_device.options_for(frozen.device, self._options)
            inputs = tuple(torch_device.on_host(pairs(ordinary(args[i]))) for i in frozen.inputs)
            compiled = session(frozen.module, inputs, options) if frozen.results else None
        self._ready = Calls(frozen, compiled)


@contextmanager
def without_autocast() -> Generator[None]:
    """Within it, operators compute in the types of their arguments: the graph has every cast."""
    import torch

    with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
        yield


def _reshaping(graph: Any) -> Any:
    """The graph with views that copy where they have to.

    A batch norm of a transposed tensor has other strides than torch traces, and fails views.
    """
    import torch

    aten = torch.ops.aten
    for node in graph.graph.find_nodes(op="call_function", target=aten.view.default):
        node.target = aten.reshape.default
    graph.recompile()
    return graph


def session(module: Any, inputs: tuple[Any, ...], options: Options) -> InferenceSession:
    """Compile a graph, or take the session of an equal one; compared with torch on `inputs`."""
    shapes = [(tuple(value.shape), str(value.dtype)) for value in inputs]
    # What a tensor's memory is seen as depends on how its elements lie there.
    layouts = [value.stride() for value in inputs] if _sees_memory(module) else []
    key = _digest(module, repr((shapes, layouts, options)))
    sessions = all_sessions()
    with sessions.lock:
        if (found := sessions.by_content.get(key)) is None:
            found = sessions.by_content[key] = compiled(module, inputs, options)
        return found


def _sees_memory(module: Any) -> bool:
    return any(
        str(node.target).startswith("aten.as_strided")
        for part in module.modules()
        if hasattr(part, "graph")
        for node in part.graph.nodes
    )


@dataclass(frozen=True)
class _Sessions:
    """The sessions that are in use, by the content of what they compute."""

    lock: threading.RLock = field(default_factory=threading.RLock)
    by_content: "weakref.WeakValueDictionary[str, InferenceSession]" = field(
        default_factory=weakref.WeakValueDictionary[str, InferenceSession]
    )


@cache
def all_sessions() -> _Sessions:
    """The sessions of this process."""
    return _Sessions()


def _digest(module: Any, rest: str) -> str:
    import blake3

    # The branches of a condition are graphs of their own, which the outer code only names.
    codes = [str(getattr(each, "code", "")) for each in module.modules()]
    hasher = blake3.blake3("\0".join([*codes, rest]).encode())
    for name, value in sorted(module.state_dict().items()):
        hasher.update(f"\0{name} {value.dtype} {tuple(value.shape)}\0".encode())
        hasher.update(value.contiguous().reshape(-1).view(_bytes()).numpy().data)
    return str(hasher.hexdigest())


def _bytes() -> Any:
    import torch

    return torch.uint8


def compiled(module: Any, inputs: tuple[Any, ...], options: Options) -> InferenceSession:
    """Compile by the road that takes less time; where that fails or is wrong, by the other."""
    faults: list[HybridcError] = []
    for road in reversed(torch_model.ROADS):
        try:
            return _by_road(module, inputs, options, road)
        except (ModelError, PassError, WrongAnswerError) as error:
            faults.append(error)
    raise type(faults[0])("; ".join(dict.fromkeys(map(str, faults))))


def _by_road(module: Any, inputs: tuple[Any, ...], options: Options, road: str) -> InferenceSession:
    model = torch_model.load(module, inputs, [road])
    feed = {spec.name: numbers(to_numpy(x)) for spec, x in zip(model.inputs, inputs, strict=True)}
    outcome = driver.compile_model(model, dataclasses.replace(options, calibration=feed))
    if outcome.broken:
        raise ContractError("; ".join(outcome.broken))
    return InferenceSession(outcome.artifact, options.threads)


def numbers(array: Array) -> Array:
    """The array with zeros in place of NaN, of which no comparison learns anything."""
    if array.dtype.kind in "iub":
        return array
    return np.where(np.isnan(array), np.zeros((), array.dtype), array)


def _counted(tensor: Any) -> bool:
    """Whether torch counts the tensor's changes, so that it may become a constant."""
    return bool(tensor.numel()) and not tensor.is_inference()
