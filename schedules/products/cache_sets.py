"""Lines of the L1 data cache that share a set, by the distance between them."""

from math import gcd

from hybridc.compiler.target import Target

LINE = 64


def crowded_lines(stride: int, rows: int, target: Target) -> int:
    """Lines of the rows, `stride` bytes apart, that find no place in the L1 cache.

    Lines whose addresses agree modulo the bytes of one way share a set of `l1_ways` lines.
    """
    return max(0, rows - distinct(stride, target) * target.l1_ways)


def distinct(stride: int, target: Target) -> int:
    """Sets to which lines `stride` bytes apart go."""
    way = target.l1 // target.l1_ways
    return max(1, way // max(gcd(stride, way), LINE))


def stay(stride: int, rows: int, target: Target) -> bool:
    """Whether a line of each of the rows, `stride` bytes apart, stays in half of the L2 cache.

    The bits of an address within its page choose among as many sets as the L1 cache has.
    """
    sets = max(1, target.l1 // target.l1_ways // LINE)
    return rows * LINE <= distinct(stride, target) / sets * target.l2 / 2
