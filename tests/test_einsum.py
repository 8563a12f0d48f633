"""Einsum of two operands, against numpy."""

from typing import Any

import numpy as np
import pytest
from onnx import helper
from test_contractions import check

from hybridc.compiler.frontends import onnx_model
from hybridc.compiler.ir.rewrite import calls

CASES = {
    "nc,ecf->enf": ((5, 6), (3, 6, 4)),
    "enf,efc->enc": ((3, 5, 4), (3, 4, 6)),
    "bhid,bhjd->bhij": ((2, 3, 4, 5), (2, 3, 7, 5)),
    "bhij,bhjd->bihd": ((2, 3, 4, 5), (2, 3, 5, 6)),
    "ij,jk->ki": ((4, 5), (5, 6)),
    "ijk,jkl->li": ((2, 3, 4), (3, 4, 5)),
    "i,i->": ((7,), (7,)),
    # Rows times matrices that some axes number which the rows lack.
    "td,tkdf->tkf": ((3, 5), (3, 2, 5, 16)),
    "td,tkdf->ktf": ((3, 5), (3, 2, 5, 7)),
    "dt,tkdf->tkf": ((5, 3), (3, 2, 5, 16)),
    "d,nkdf->nfk": ((5,), (3, 2, 5, 16)),
    "tde,tkdefg->tkfg": ((3, 5, 4), (3, 2, 5, 4, 6, 7)),
    "abc,cd->abd": ((2, 3, 4), (4, 5)),
    "nchw,cd->ndhw": ((1, 3, 4, 5), (3, 6)),
    "ij,ij->i": ((4, 5), (4, 5)),
    "bij, bjk -> bik": ((2, 3, 4), (2, 4, 5)),
    # Left to TVM: an axis that one operand alone has and the result lacks, a product by elements.
    "ijk,jl->il": ((2, 3, 4), (3, 5)),
    "ij,ij->ij": ((4, 5), (4, 5)),
    "i,j->ij": ((4,), (5,)),
}


@pytest.mark.parametrize("equation", CASES)
@pytest.mark.parametrize("fixed", [False, True])
def test_two_operands(equation: str, fixed: bool) -> None:
    draw = np.random.default_rng(0)
    names = ("x", "w")
    operands = {
        name: draw.standard_normal(shape).astype("float32")
        for name, shape in zip(names, CASES[equation], strict=True)
    }
    inputs = dict(list(operands.items())[: 1 if fixed else 2])
    constants = {name: value for name, value in operands.items() if name not in inputs}
    proto: Any = _model(equation, inputs, constants)
    check(proto, inputs, "cpu", None)


# Of several operands, and of two with axes that are in one of them alone.
SEVERAL = {
    "ntf,nfd,tn->td": ((3, 5, 4), (3, 4, 6), (5, 3)),
    "bhsd,bhsde,bhs->bhse": ((1, 2, 3, 4), (1, 2, 3, 4, 5), (1, 2, 3)),
    "bclhn,bcshn,bhcls,bcshp->bclhp": (
        (1, 2, 3, 2, 4),
        (1, 2, 5, 2, 4),
        (1, 2, 2, 3, 5),
        (1, 2, 5, 2, 6),
    ),
    "tk,tkn,tkc->tnc": ((5, 2), (5, 2, 3), (5, 2, 4)),
    "ab,bc,cd,de->ae": ((2, 3), (3, 4), (4, 5), (5, 6)),
    "a,b,c->cab": ((2,), (3,), (4,)),
    "abc,cd,ae->ebd": ((2, 3, 4), (4, 5), (2, 6)),
    "ab,ab,ab->ab": ((2, 3), (2, 3), (2, 3)),
    "ab,ab,ab->b": ((2, 3), (2, 3), (2, 3)),
    "ab,ac,ad->bcd": ((2, 3), (2, 4), (2, 5)),
}


@pytest.mark.parametrize("equation", SEVERAL)
def test_several_operands(equation: str) -> None:
    draw = np.random.default_rng(0)
    operands = {
        f"x{i}": draw.standard_normal(shape).astype("float32")
        for i, shape in enumerate(SEVERAL[equation])
    }
    proto: Any = _model(equation, operands, {})
    check(proto, operands, "cpu", None)


def test_several_operands_are_matrix_products() -> None:
    draw = np.random.default_rng(0)
    equation = "ntf,nfd,tn->td"
    operands = {f"x{i}": draw.random(s, "float32") for i, s in enumerate(SEVERAL[equation])}
    loaded = onnx_model.load(_model(equation, operands, {}), {})
    assert calls(loaded.module, "matmul")
    assert not calls(loaded.module, "einsum")


def _model(equation: str, inputs: dict[str, Any], constants: dict[str, Any]) -> Any:
    from onnx import numpy_helper, shape_inference

    graph = helper.make_graph(
        [helper.make_node("Einsum", [*inputs, *constants], ["y"], equation=equation)],
        "einsum",
        [helper.make_tensor_value_info(n, 1, x.shape) for n, x in inputs.items()],
        [helper.make_tensor_value_info("y", 1, None)],
        [numpy_helper.from_array(w, n) for n, w in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return shape_inference.infer_shapes(model)
