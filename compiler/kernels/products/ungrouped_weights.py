"""A kernel of `grouped_weights` of many rows: integers are unpacked, not added up group by group.

A product with an open number of rows is cut into strips.  Those of few rows wait for their
weights, and add up integers; in those of many a weight that is unpacked once serves all rows.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from tvm import s_tir, tirx
from tvm_ffi import structural_map, structural_walk

from hybridc.compiler.interfaces import PrimFunc
from hybridc.compiler.kernels.products import grouped_weights, weight_only
from hybridc.compiler.kernels.tensor_expressions import FLOPS, KERNEL, extents
from hybridc.compiler.model import Array

_WORD, _BYTE = "int32", "int8"
_PANELS = 3  # axes of packed operands


def ungrouped(func: PrimFunc) -> PrimFunc:
    """The kernel with the loop nests of `weight_only.dense` in place of the product's own.

    The rest of it, the epilogue, stays, and so do its parameters.
    """
    statements = list(func.body.block.body.seq)
    blocks = [_block_of(each) for each in statements]
    at = next(i for i, b in enumerate(blocks) if str(b.annotations.get(KERNEL, "")))
    x, operands = _operands(func, blocks[: at + 1])
    product = blocks[at].writes[0].source
    made = _plain(extents(x), operands, int(product.shape[-1]))
    own = [_block_of(each) for each in made.body.block.body.seq]
    plain = next(b.writes[0].source for b in own if str(b.annotations.get(KERNEL, "")))
    pairs = [*zip(made.params[:-1], (x, *operands), strict=True), (plain, product)]
    count = next(i for i, b in enumerate(own) if str(b.annotations.get(KERNEL, ""))) + 1
    nests = [_with_buffers(each, pairs) for each in list(made.body.block.body.seq)[:count]]
    nests[-1] = _counting(nests[-1], blocks[at].annotations[FLOPS])
    inner = [b for b in made.body.block.alloc_buffers if not b.same_as(plain)]
    outer = [b for b in func.body.block.alloc_buffers if not _only_in(b, blocks[:at])]
    root = func.body.block
    body = tirx.SeqStmt([*nests, *statements[at + 1 :]])
    block = s_tir.SBlock(
        [], root.reads, root.writes, root.name_hint, body, None, [*inner, *outer], None
    )
    return func.with_body(s_tir.SBlockRealize([], True, block))


def _plain(shape: Sequence[Any], operands: Sequence[Any], columns: int) -> PrimFunc:
    """The loop nest for operands of the same shapes and types: integers, scales, zeros."""
    integers, scales, *zeros = (_like(each) for each in operands)
    bits = 4 if integers.dtype == np.int32 else 8
    return weight_only.dense(
        shape, integers, scales, columns, bits, zeros=zeros[0] if zeros else None, signed=False
    )


def _like(buffer: Any) -> Array:
    """An array that takes no memory."""
    import ml_dtypes

    kind = str(buffer.dtype)
    dtype = ml_dtypes.bfloat16 if kind == "bfloat16" else np.dtype(kind)
    return np.broadcast_to(np.zeros((), dtype), extents(buffer))


def _operands(func: PrimFunc, blocks: Sequence[Any]) -> tuple[Any, list[Any]]:
    """The activations, and the packed parameters that the product's blocks read."""
    read = [region.source for block in blocks for region in block.reads]
    params = [p for p in func.params if any(p.same_as(source) for source in read)]
    by_name = {str(block.name_hint): block for block in blocks}
    first = by_name.get("pad", by_name[grouped_weights.SCALED])
    x = first.reads[0].source
    packed = [p for p in params if not p.same_as(x)]
    integers = by_name[grouped_weights.PARTIAL].reads
    q = next(r.source for r in integers if any(r.source.same_as(p) for p in packed))
    others = [p for p in packed if not p.same_as(q)]
    scales = [p for p in others if "float" in str(p.dtype)]
    return x, [q, *scales, *(p for p in others if p not in scales)]


def _block_of(statement: Any) -> Any:
    """The block within the loops of a nest."""
    found: list[Any] = []
    structural_walk(statement, (s_tir.SBlock, found.append))
    return found[0]


def _only_in(buffer: Any, blocks: Sequence[Any]) -> bool:
    """Whether one of these blocks makes a buffer."""
    return any(region.source.same_as(buffer) for block in blocks for region in block.writes)


def _with_buffers(statement: Any, pairs: Sequence[tuple[Any, Any]]) -> Any:
    """A statement on other buffers."""
    known = {hash(old): new for old, new in pairs}
    return structural_map(statement, (tirx.Var, lambda var: known.get(hash(var), var)))


def _counting(statement: Any, flops: Any) -> Any:
    """The product with the operations that were asked for, without the columns that pad panels."""

    def noted(block: Any) -> Any:
        annotations = {**dict(block.annotations), FLOPS: flops}
        return s_tir.SBlock(
            *(block.iter_vars, block.reads, block.writes, block.name_hint, block.body),
            *(block.init, block.alloc_buffers, None, annotations),
        )

    return structural_map(statement, (s_tir.SBlock, noted))
