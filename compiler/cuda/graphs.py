"""Calls of a model as CUDA graphs: recorded once for the same inputs' addresses, then replayed.

What a graph computes in between lies in memory that the graph keeps: TVM would give it to others.
Small kernels take less time than their launches; a graph is one launch for all of them.  Inputs
that a session copies to the GPU lie at the same addresses every time, and so may a caller's own.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

from hybridc.compiler.errors import HybridcError

Tensor = Any  # tvm.runtime.Tensor
_PLAIN = 2  # calls before one is recorded: they load kernels and fill TVM's pool of memory
_MOST = 8  # graphs of one session; each holds the memory of its results


class Replay(Protocol):
    """A recorded call."""

    def replay(self) -> None:
        """Begin to run it again."""
        ...


Record = Callable[[Callable[[], Any]], tuple[Replay, Any]]


@dataclass
class _Known:
    """Calls with inputs at the same addresses: how many were plain, and the graph if there is."""

    plain: int = 0
    graph: Replay | None = None
    results: Sequence[Tensor] = ()
    held: list[Any] = field(default_factory=list[Any])
    failed: bool = False


@dataclass
class Graphs:
    """A session's `main` on a GPU, replayed where it can be.

    `holding` gives a `main` that adds all that it allocates to a list.
    `record` makes a graph of what a function asks of the GPU; `around` holds while anything is
    asked of the GPU (its stream).  `lent` tells whether the last results are a graph's, whose next
    replay writes them again.
    """

    main: Callable[..., Any]
    holding: Callable[[list[Any]], Callable[..., Any]]
    record: Record
    around: Callable[[], AbstractContextManager[Any]] = nullcontext
    notes: list[str] = field(default_factory=list[str])
    lent: bool = False
    _known: OrderedDict[tuple[Any, ...], _Known] = field(
        default_factory=OrderedDict[tuple[Any, ...], _Known]
    )

    def __call__(self, *given: Any) -> Any:
        """What `main` returns; in memory of the caller's own unless it is `lent`."""
        with self.around():
            known = self._of(given)
            if known.graph is None and known.plain == _PLAIN and not known.failed:
                self._record(known, given)
            self.lent = known.graph is not None
            if known.graph is None:
                known.plain = min(_PLAIN, known.plain + 1)
                return self.main(*given)
            known.graph.replay()
            return list(known.results)

    def _of(self, given: Sequence[Any]) -> _Known:
        tensors = [each for each in given if hasattr(each, "data_ptr")]
        key = tuple((tensor.data_ptr(), *tensor.shape) for tensor in tensors)
        known = self._known.setdefault(key, _Known())
        self._known.move_to_end(key)
        while len(self._known) > _MOST:
            self._known.popitem(last=False)
        return known

    def _record(self, known: _Known, given: Sequence[Any]) -> None:
        """Make a graph; where that fails calls stay plain, and a note says why."""
        try:
            main = self.holding(known.held)
            graph, result = self.record(lambda: main(*given))
        except (HybridcError, RuntimeError) as error:
            known.failed = True
            known.held.clear()
            self.notes.append(f"calls are not replayed as a graph: {error}")
            return
        known.graph = graph
        known.results = [result] if hasattr(result, "data_ptr") else list(result)
