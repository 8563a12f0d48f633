"""What the rules of kernels without reductions ask of a kernel, on whatever device."""

from hybridc.compiler.interfaces import NotApplicable, PrimFunc
from hybridc.schedules.loops import analysis, transforms
from hybridc.schedules.loops.analysis import Block


def unless_pointwise(found: tuple[Block, ...], single: bool = False) -> NotApplicable | None:
    """Why these blocks are not elementwise; None if they are.

    With `single`, blocks that store one element without loops will do.
    """
    if not found or not all(block.plain or (single and block.single) for block in found):
        return NotApplicable("a block is not a single store under constant loops")
    if any(block.reduction for block in found):
        return NotApplicable("it holds a reduction")
    return None


def one_nest(func: PrimFunc) -> tuple[PrimFunc, Block] | NotApplicable:
    """An elementwise kernel with all inlined into its one block, and that block."""
    if reason := unless_pointwise(analysis.blocks(func)):
        return reason
    inlined = transforms.inline(func)
    left = analysis.blocks(inlined)
    if len(left) != 1:
        return NotApplicable("it does not come down to one loop nest")
    return inlined, left[0]
