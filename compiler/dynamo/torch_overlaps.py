"""Arguments that share memory with one that a graph writes to: code is made for how they do.

AOTAutograd traces a graph for the arguments that it is given.  The guards that it adds where these
overlap are lost here: it runs at the first call, when Dynamo's own compilation is over.
"""

from collections.abc import Collection, Hashable, Iterator, Sequence
from itertools import pairwise
from typing import Any

_Span = tuple[int, int, int]  # addresses of the first byte and behind the last one, and the place


def versions(args: Sequence[Any]) -> list[int | None]:
    """How often torch has counted a write to each argument; None where it counts none."""
    return [_version(value) for value in args]


def written(args: Sequence[Any], before: Sequence[int | None]) -> frozenset[int]:
    """The places of tensors that were written to since, or that may have been."""
    now = zip(args, before, strict=True)
    return frozenset(place for place, (value, old) in enumerate(now) if _changed(value, old))


def overlaps(
    args: Sequence[Any], places: Collection[int], written: Collection[int]
) -> tuple[Hashable, ...]:
    """How those arguments at `places` lie that overlap one that is written to."""
    if not written:
        return ()
    spans = sorted(_span(args[place], place) for place in places if _has_memory(args[place]))
    if all(one[1] <= next_[0] for one, next_ in pairwise(spans)):
        return ()
    return tuple(
        tuple((place, begin - group[0][0], _geometry(args[place])) for begin, _, place in group)
        for group in _groups(spans)
        if len(group) > 1 and any(place in written for _, _, place in group)
    )


def _groups(spans: Sequence[_Span]) -> Iterator[list[_Span]]:
    """Spans in the order of their addresses, those together that touch the same memory."""
    group: list[_Span] = []
    end = 0
    for span in spans:
        if group and span[0] >= end:
            yield group
            group = []
        group.append(span)
        end = max(end, span[1]) if len(group) > 1 else span[1]
    yield group


def _span(tensor: Any, place: int) -> _Span:
    begin = tensor.data_ptr()
    if tensor.is_contiguous():
        return begin, begin + tensor.nbytes, place
    steps = zip(tensor.shape, tensor.stride(), strict=True)
    last = sum((size - 1) * stride for size, stride in steps)
    return begin, begin + (last + 1) * tensor.element_size(), place


def _geometry(tensor: Any) -> Hashable:
    """What a view is replayed by; sizes are part of the key already."""
    base = tensor._base
    under = None if base is None else (tuple(base.shape), base.stride(), str(base.dtype))
    return tensor.stride(), tensor.storage_offset(), tensor.untyped_storage().nbytes(), under


def _has_memory(value: Any) -> bool:
    import torch

    usual = isinstance(value, torch.Tensor) and value.layout == torch.strided
    return usual and value.numel() > 0


def _version(value: Any) -> int | None:
    import torch

    if not isinstance(value, torch.Tensor) or value.is_inference():
        return None
    return int(value._version)


def _changed(value: Any, old: int | None) -> bool:
    import torch

    if not isinstance(value, torch.Tensor):
        return False
    return old is None or value._version != old
