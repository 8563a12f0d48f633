"""Functions in LLVM IR that a loop nest brings along."""

from typing import Any

from tvm import s_tir, tirx

from hybridc.compiler.interfaces import PrimFunc


def with_functions(func: PrimFunc, text: str) -> PrimFunc:
    """The loop nest with LLVM's functions at its root."""
    realize: Any = func.body
    root = realize.block
    body = tirx.AttrStmt(tirx.const(0, "int32"), "pragma_import_llvm", text, root.body)
    block = s_tir.SBlock(
        root.iter_vars,
        root.reads,
        root.writes,
        root.name_hint,
        body,
        root.init,
        root.alloc_buffers,
        root.match_buffers,
        root.annotations,
    )
    return func.with_body(s_tir.SBlockRealize(realize.iter_values, realize.predicate, block))
