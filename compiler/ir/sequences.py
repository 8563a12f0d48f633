"""Statements in a row, which TVM's operators mark so that its code generator warns of the mark.

Scatters among others are built within `T.seq_scope`, a pragma that nothing reads.
"""

from typing import Any

from tvm import tirx
from tvm.ir.transform import Sequential, module_pass
from tvm.tirx import compilation_pipeline
from tvm_ffi import structural_map

from hybridc.compiler.interfaces import IRModule
from hybridc.compiler.ir.rewrite import updated

# The name by which `tvm.compile` finds TVM's own lowering without the marks.
PLAIN_PIPELINE = "hybridc-plain"
_MARK = "pragma_scope"


@module_pass(opt_level=0)
def drop_marks(module: IRModule, context: Any) -> IRModule:
    """Leave the statements alone where the marks were."""
    functions = {
        var: func.with_body(structural_map(func.body, (tirx.AttrStmt, _unmarked)))
        for var, func in module.functions_items()
        if isinstance(func, tirx.PrimFunc)
    }
    return updated(module, functions)


def _unmarked(statement: Any) -> Any:
    return statement.body if statement.attr_key == _MARK else statement


def _pipeline() -> tuple[Any, Any, Any]:
    lower, finalize_host, finalize_device = compilation_pipeline.PIPELINE_MAP["s_tir"]()
    return Sequential([drop_marks, lower]), finalize_host, finalize_device


compilation_pipeline.PIPELINE_MAP[PLAIN_PIPELINE] = _pipeline
