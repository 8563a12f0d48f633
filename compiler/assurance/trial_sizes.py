"""Which sizes to compare the answers of a model with open ones at."""

from collections.abc import Callable, Mapping

from hybridc.compiler.dims import Dim, Sizes, nominal

# Tried where nothing above bounds a size: a prime beyond two strips of 64 rows, the longest there
# are, or where that takes too long beyond one of 16.
_LARGE = (131, 19)


def trials(dims: Mapping[str, Dim]) -> list[dict[str, int]]:
    """Sizes to compare answers at, without repetition: first those that are measured.

    Behind these come the lower bounds, each upper bound with the others between theirs (together
    they might take long), and sizes between, which are no multiples of anything.
    """
    if not dims:
        return [{}]
    chosen = [nominal(dims), {name: dim.low for name, dim in dims.items()}]
    between = {name: _between(dim) for name, dim in dims.items()}
    chosen.append(between)
    chosen += [{**between, name: dim.high} for name, dim in dims.items() if dim.high is not None]
    unique: list[dict[str, int]] = []
    for sizes in chosen:
        if sizes not in unique:
            unique.append(sizes)
    return unique


def large(dims: Mapping[str, Dim], affordable: Callable[[Sizes], bool]) -> list[list[Sizes]]:
    """Sizes of which one that nothing bounds is large, the others the least; a choice for each.

    Kernels go through their longest strips more than once there, and through each shorter one.
    """
    least = {name: dim.low for name, dim in dims.items()}
    ladders = (
        [{**least, name: dim.above(dim.low - 1 + size)} for size in _LARGE]
        for name, dim in dims.items()
        if dim.high is None
    )
    return [list(filter(affordable, ladder)) for ladder in ladders]


def _between(dim: Dim) -> int:
    """A prime of steps strictly between the bounds where there is one, else any size."""
    low, end = dim.low // dim.step, None if dim.high is None else dim.high // dim.step
    end = low + 16 if end is None else end
    middle = (low + min(end, low + 32)) // 2
    primes = (p for p in range(middle, end) if p > 1 and all(p % d for d in range(2, p)))
    return next(primes, middle) * dim.step
