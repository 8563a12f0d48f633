"""The mark of activations that a product may round to 8 bits, as the model allows it.

It computes nothing: where no pass asks for it, the product is one of float32.
"""

from functools import cache
from typing import Any

import tvm
from tvm import relax
from tvm.ir import _ffi_api
from tvm.relax.transform.legalize_ops.common import register_legalize

OPERATOR = "hybridc.roundable"
_FULL = f"relax.{OPERATOR}"


def marked(x: Any) -> Any:
    """Activations, with the mark."""
    return relax.Call(_operator(), [x])


@cache
def _operator() -> Any:
    """TVM's operator, made when it is first used."""
    operator = _ffi_api.RegisterOp(_FULL, "activations that may be rounded")
    operator = tvm.ir.Op.get(_FULL) if operator is None else operator
    like = tvm.ir.Op.get("relax.nn.relu")
    operator.set_attr("FPurity", like.get_attr("FPurity"))
    operator.set_attr("FInferType", lambda call, _: call.args[0].ty)
    _ffi_api.OpSetNumInputs(operator, 1)
    _ffi_api.OpAddArgument(operator, "x", "Tensor", "The activations.")
    register_legalize(_FULL, lambda _, call: call.args[0])
    return operator
