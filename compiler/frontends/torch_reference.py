"""The right answer of a torch model: torch, eager."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
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

    def rounded(self, move: Callable[[Array], Array]) -> Reference:
        """The same with each matrix of weights moved, while it runs."""

        def reference(feed: Feed) -> list[Array]:
            with _moved_weights(self.module(), move):
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
