"""Which register tiles find their operands a place in the registers of a target."""

from collections.abc import Iterator

from hybridc.compiler.target import Target

# With so many registers come instructions that broadcast an operand from memory.
EMBEDDED = 32
# Steps of the depth that LLVM unrolls, and the registers that it then holds activations in.
_UNROLLED, _HELD = 16, 5


def tiles(
    target: Target, parts: int = 1, spare: int = 0, taps: int = 1
) -> Iterator[tuple[int, int]]:
    """Rows and vectors of the tiles whose accumulators and operands fit the registers.

    An operand takes `parts` of them, and `spare` ones are left for products; an activation meets
    the weights of so many `taps`.
    """
    registers = target.vector_registers
    for vectors in (1, 2, 3, 4, 6, 8):
        for rows in range(1, 17):
            broadcasts = 1 if taps > 1 else _broadcasts(rows, vectors, target)
            operands = parts * vectors * taps + max(parts, broadcasts)
            if rows * vectors + operands + spare <= registers:
                yield rows, vectors


def _broadcasts(rows: int, vectors: int, target: Target) -> int:
    """Registers for activations, next to one for each vector of weights.

    One will do where an activation is multiplied several times, or where instructions broadcast
    from memory (AVX-512).  Else LLVM loads a step's all at once, and accumulators find no register:
    64 to 8 channels, 3x3 at 56x56, are at 52 % of the peak in 14 rows, at 83 % in 7 (Zen 3).
    """
    return rows if vectors == 1 and target.vector_registers < EMBEDDED else 1


def held(steps: int, target: Target) -> int:
    """Registers for activations that stay, where a row of a window is so many steps of the depth.

    LLVM unrolls a few steps, finds that one pixel reads what its neighbour read, and keeps that.
    Where instructions broadcast from memory, it does not.  3 to 32 channels, 3x3 of stride 2 at
    224x224, take 170 µs in tiles of 6 x 2, which spill, and 132 in those of 4 x 2 (Zen 3).
    """
    return _HELD if steps <= _UNROLLED and target.vector_registers < EMBEDDED else 0
