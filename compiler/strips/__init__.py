"""Kernels with open sizes, cut into strips of fixed size that every rule can schedule."""

from hybridc.compiler.interfaces import PrimFunc
from hybridc.compiler.strips import choose
from hybridc.compiler.strips.axes import buffers_of, free_axes, has_open_sizes, is_buffer
from hybridc.compiler.strips.cut import PART, Strip, cut
from hybridc.compiler.strips.join import INSIDE, Scheduled, join

__all__ = [
    "INSIDE",
    "Scheduled",
    "Strip",
    "buffers_of",
    "cuts",
    "has_gaps",
    "has_open_sizes",
    "is_buffer",
    "is_strip",
    "join",
]


def is_strip(func: PrimFunc) -> bool:
    """Whether a kernel is part of another, whose other parts other threads may compute."""
    return func.attrs is not None and PART in func.attrs


def has_gaps(func: PrimFunc) -> bool:
    """Whether it is, and its rows lie further apart than its buffers say."""
    return is_strip(func) and not int(func.attrs[PART])


def cuts(func: PrimFunc) -> list[Strip]:
    """The strips that make up a kernel with open sizes, larger ones first.

    None if its sizes are fixed, or no open axis can be cut.
    """
    axes = free_axes(func) if has_open_sizes(func) else ()
    if not axes:
        return []
    made: list[Strip] = []
    for sizes in choose.sizes(func, axes):
        form = choose.form(func, sizes)
        own = axes if form is func else free_axes(form)
        made.append(cut(form, own, sizes, choose.dropped(form, own, sizes)))
    return made
