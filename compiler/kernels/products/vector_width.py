"""How many output channels share a vector of packed weights."""

from hybridc.compiler.target import Target

# Vectors of so many bits are multiplied in two halves on some CPUs.
_HALVED = 512
# What half vectors take against whole ones, for their loads and instructions.  Measured on Zen 4:
# whole ones reach 95 to 98 % of the peak, half ones 82 to 87 %.
_HALF = 1.2


def lanes_for(outputs: int, groups: int, target: Target) -> int:
    """Output channels in a vector of float32 weights: a whole vector, or half of one.

    Half vectors leave less unused where `outputs` or those of one group are no whole vectors.
    They pay only where two of them are multiplied in the time of a whole one.
    """
    whole = target.lanes()
    if target.vector_bits < _HALVED or target.machine.fma_per_cycle > 1:
        return whole
    half = whole // 2
    worth = _HALF * _multiplied(outputs, groups, half) < _multiplied(outputs, groups, whole)
    return half if worth else whole


def holds_groups(inputs: int, outputs: int, groups: int, lanes: int) -> bool:
    """Whether whole groups, of `inputs` and as many `outputs`, fill every vector.

    A vector of activations then holds what its lanes are multiplied by, in another order.
    """
    fits = 1 < inputs == outputs < lanes and lanes % outputs == 0
    return fits and groups * outputs % lanes == 0


def merged(outputs: int, groups: int, lanes: int) -> int:
    """How many neighbouring groups of `outputs` each share a vector; 1 where no two fit into one.

    Groups that shared several vectors would multiply more by zeros than what groups alone leave
    unused: two of 24 channels take 3 vectors of 48 inputs for 2 x 2 of 24.
    """
    most = min(groups, lanes // outputs)
    return next((merge for merge in range(most, 1, -1) if groups % merge == 0), 1)


def _multiplied(outputs: int, groups: int, lanes: int) -> int:
    """Multiply-adds for each of a group's inputs and pixels, those with zeros among them."""
    each = merged(outputs // groups, groups, lanes) * (outputs // groups)
    return -(-each // lanes) * lanes * groups
