"""Functions of torch that look at data as they are traced, written with others that do not.

`torch.export` cannot trace them: their own code asks a tensor for a number, or the shape of a
result that nobody reads depends on the data.  While a module is exported, a call of one of them is
a call of the function that a family in `aten/` names for it in its table `TRACEABLE`.
"""

import contextlib
import threading
from collections.abc import Callable, Generator, Mapping
from functools import cache
from types import MappingProxyType
from typing import Any

from torch.overrides import TorchFunctionMode

from hybridc.compiler.frontends.torch_import import decompositions


@contextlib.contextmanager
def traceable() -> Generator[None, None, None]:
    """Within it, modules can be traced that torch's own functions would keep from it.

    Transformers of torch look whether a mask is the causal one, for which there are faster kernels:
    here they take it as it is.
    """
    from torch.nn.modules import transformer

    layers: Any = transformer
    with _exporting():
        looking = layers._detect_is_causal_mask
        layers._detect_is_causal_mask = _as_told
        try:
            with Traceable():
                yield
        finally:
            layers._detect_is_causal_mask = looking


def _as_told(mask: Any, is_causal: bool | None = None, size: int | None = None) -> bool:
    """Whether the caller says that the mask is causal."""
    del mask, size
    return bool(is_causal)


@cache
def _exporting() -> threading.RLock:
    return threading.RLock()


class Traceable(TorchFunctionMode):
    """Within it, functions that cannot be traced are others that can."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call the function, or ours in its place."""
        del types
        return replacements().get(func, func)(*args, **(kwargs or {}))


@cache
def replacements() -> Mapping[Callable[..., Any], Callable[..., Any]]:
    """Ours by torch's: the table `TRACEABLE` of every family."""
    found: dict[Callable[..., Any], Callable[..., Any]] = {}
    for module in decompositions.families():
        found.update(getattr(module, "TRACEABLE", {}))
    return MappingProxyType(found)
