"""Pass GPU kernels the memory that they keep between their launches."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import tvm
from tvm import relax, s_tir, tirx
from tvm.ir.expr import Call

from hybridc.compiler.interfaces import Context, IRModule, Pass, PrimFunc
from hybridc.compiler.ir.rewrite import relax_functions, updated, with_blocks

_SCOPES = ("", "global")


@dataclass(frozen=True)
class LiftWorkspaces(Pass):
    """Pass GPU kernels the memory that they keep between their launches.

    For what one launch of a kernel leaves to the next, such as partial sums, TVM's runtime takes
    memory from a pool of the calling thread; a recorded graph would still use it after the pool
    has given it to others.  Here it becomes a tensor like any other, and is planned with them.
    """

    def apply(self, module: IRModule, context: Context) -> IRModule:
        """Rewrite the kernels that keep anything, and their calls."""
        found = {
            var: bare
            for var, func in module.functions_items()
            if isinstance(func, tirx.PrimFunc) and (bare := _lifted(func)) is not None
        }
        if not found:
            return module
        others = {var: func for var, func in module.functions_items() if var not in found}
        builder = relax.BlockBuilder(tvm.IRModule(others, attrs=module.attrs))
        lifted = {
            var: (builder.add_func(func, var.name_hint), kept)
            for var, (func, kept) in found.items()
        }
        built = builder.get()
        graphs = {
            built.get_global_var(var.name_hint): _with_workspaces(function, lifted)
            for var, function in relax_functions(module)
        }
        return relax.transform.Normalize()(updated(built, graphs))


def _lifted(func: PrimFunc) -> tuple[PrimFunc, list[Any]] | None:
    """The kernel with what it keeps as its last parameters; None if it keeps nothing."""
    kept: list[Any] = []
    body = _without(func.body, kept)
    if not kept:
        return None
    return tirx.PrimFunc([*func.params, *kept], body, func.ret_type, func.attrs), kept


def _without(body: Any, kept: list[Any]) -> Any:
    """A body without the allocations outside of all loops, which are added to a list."""
    if isinstance(body, tirx.SeqStmt):
        parts = [_without(part, kept) for part in body.seq]
        left = [part for part in parts if part is not None]
        return left[0] if len(left) == 1 else tirx.SeqStmt(left)
    if isinstance(body, tirx.AllocBuffer) and _is_lasting(body.buffer):
        kept.append(body.buffer)
        return None
    if not isinstance(body, s_tir.SBlockRealize) or body.block.iter_vars:
        return body
    block = body.block
    lasting = [buffer for buffer in block.alloc_buffers if _is_lasting(buffer)]
    kept.extend(lasting)
    inner = _without(block.body, kept)
    others = [buffer for buffer in block.alloc_buffers if not _is_lasting(buffer)]
    bare = s_tir.SBlock(
        block.iter_vars,
        block.reads,
        block.writes,
        block.name_hint,
        inner,
        block.init,
        others,
        block.match_buffers,
        block.annotations,
    )
    return s_tir.SBlockRealize(body.iter_values, body.predicate, bare)


def _is_lasting(buffer: Any) -> bool:
    known = all(isinstance(extent, tirx.IntImm) for extent in buffer.shape)
    return known and buffer.scope() in _SCOPES


def _with_workspaces(function: Any, lifted: Any) -> Any:
    """The function with a tensor for each workspace, allocated ahead of the call that wants it."""
    blocks = [
        type(block)([new for binding in block.bindings for new in _given(binding, lifted)])
        for block in function.body.blocks
    ]
    return with_blocks(function, blocks)


def _given(binding: Any, lifted: Any) -> Iterator[Any]:
    call = binding.value
    if not isinstance(call, Call) or call.op not in lifted:
        yield binding
        return
    kernel, kept = lifted[call.op]
    arguments = list(call.args)
    for buffer in kept:
        shape, dtype = [int(extent) for extent in buffer.shape], str(buffer.dtype)
        value = relax.op.builtin.alloc_tensor(relax.ShapeExpr(shape), dtype, 0)
        workspace = relax.Var("workspace", relax.TensorType(shape, dtype))
        yield relax.VarBinding(workspace, value)
        arguments.append(workspace)
    yield relax.VarBinding(binding.var, Call(kernel, arguments))
