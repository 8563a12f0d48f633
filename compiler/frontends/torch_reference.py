"""The right answer of a torch model: torch, eager."""

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np

from hybridc.compiler.errors import InputError, first_line
from hybridc.compiler.model import Array, Feed, Reference


@dataclass(frozen=True)
class TorchReference:
    """Computes with torch eager, without gradients: `run` takes tensors by input name.

    Outputs are flattened in the order of `torch.export`; what is no tensor is left out.  `module`
    gives what holds the weights.
    """

    run: Callable[[dict[str, Any]], Any]
    module: Callable[[], Any]

    def __call__(self, feed: Feed) -> list[Array]:
        """The outputs; raises InputError if the model does not run on these inputs."""
        import torch
        from torch.utils._pytree import tree_leaves

        with torch.no_grad():
            try:
                result = self.run({name: _to_torch(array) for name, array in feed.items()})
            except Exception as error:  # the model is the user's own code
                raise InputError(
                    f"torch rejects the inputs used for comparison: {first_line(error)[:200]};"
                    " if random ones make no sense, give some with calibration="
                ) from error
        return [to_numpy(leaf) for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]

    def rounded(self, move: Callable[[Array], Array], seed: int = 0) -> Reference:
        """The same with each matrix of weights moved, while it runs.

        With a `seed`, what functions choose by is off by some roundings, too.
        """

        def reference(feed: Feed) -> list[Array]:
            with _moved_weights(self.module(), move), _unsettled(seed):
                return self(feed)

        return reference


@contextmanager
def _moved_weights(module: Any, move: Callable[[Array], Array]) -> Generator[None, None, None]:
    """Other weights of fp32 in a torch module, and then its own again."""
    import torch

    found = (each.data for each in module.parameters() if each.ndim > 1)
    weights = [each for each in found if each.dtype == torch.float32]
    kept = [each.clone() for each in weights]
    try:
        for weight, own in zip(weights, kept, strict=True):
            weight.copy_(torch.from_numpy(move(own.cpu().numpy())))
        yield
    finally:
        for weight, own in zip(weights, kept, strict=True):
            weight.copy_(own)


# What functions of torch choose by, as the operators of ONNX (onnx_graph/choices.py).
_CHOOSING = ("topk", "sort", "argsort", "argmax", "argmin")
_OFF = 4 * 2.0**-24


def _unsettled(seed: int) -> AbstractContextManager[Any]:
    """Within it, functions that choose are given numbers that are off by some roundings."""
    if not seed:
        return nullcontext()
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    generator = torch.Generator().manual_seed(seed)
    names = {f"aten::{name}" for name in _CHOOSING}

    class Unsettled(TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            if args and func.name().partition(".")[0] in names and _is_fp32(args[0]):
                off = torch.rand(args[0].shape, generator=generator) * (2 * _OFF) + (1 - _OFF)
                args = (args[0] * off.to(args[0].device), *args[1:])
            return func(*args, **(kwargs or {}))

    return Unsettled()


def _is_fp32(value: Any) -> bool:
    import torch

    return isinstance(value, torch.Tensor) and value.dtype == torch.float32


@contextmanager
def evaluation_mode(module: Any) -> Generator[None, None, None]:
    """Switch dropout and its like off in a torch module, and leave it as it was."""
    modes = [(part, part.training) for part in module.modules()]
    try:
        for part, _ in modes:
            part.training = False
        yield
    finally:
        for part, training in modes:
            part.training = training


def _to_torch(array: Array) -> Any:
    import torch

    owned = np.array(array, order="C")
    if owned.dtype.name == "bfloat16":  # numpy knows the type only by ml_dtypes, torch by its own
        return torch.from_numpy(owned.view(np.uint16)).view(torch.bfloat16)
    return torch.from_numpy(owned)


def to_numpy(tensor: Any) -> Array:
    """A tensor of torch's as an array; complex numbers are pairs of real ones in a last axis."""
    import ml_dtypes
    import torch

    plain = tensor.detach().cpu().contiguous()
    if plain.is_complex():  # as pairs of real numbers, as models have them
        plain = torch.view_as_real(plain.resolve_conj())
    if plain.dtype == torch.bfloat16:
        array: Array = plain.view(torch.uint16).numpy().view(ml_dtypes.bfloat16)
    else:
        array = plain.numpy()
    return array
