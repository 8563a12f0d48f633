"""Loop nests written as text, for what no operator of Relax computes: one step after another.

A kernel's first axis counts independent problems; all else in it is sequential.
"""

from collections.abc import Sequence
from math import prod
from typing import Any

import tvm
from tvm.script import tirx

from hybridc.compiler.frontends.onnx.node import Expr, Scope, static

Shapes = Sequence[tuple[tuple[int, ...], str]]


def call(
    scope: Scope, name: str, text: str, operands: Sequence[Expr], results: Shapes, **names: Any
) -> tuple[Expr, ...]:
    """Call the function `main` of a text in TVMScript; `names` are the constants that it reads.

    `results` are the shape and type of each buffer behind the operands'.
    """
    function = tvm.script.from_source(text, {"T": tirx, **names})
    return scope.loops(name, function, operands, results)


def batched(scope: Scope, x: Expr, rank: int) -> Expr:
    """A tensor with its axes before the last `rank` as one."""
    shape = static(x)
    outer, inner = shape[: len(shape) - rank], shape[len(shape) - rank :]
    return x if len(outer) == 1 else scope.reshape(x, [prod(outer), *inner])


def wide(scope: Scope, x: Expr) -> Expr:
    """A tensor as float64."""
    return scope.as_type(x, "float64")


def as_result(scope: Scope, x: Expr, shape: Sequence[int], kind: str) -> Expr:
    """A tensor in the shape and type that torch gives it."""
    x = x if static(x) == tuple(shape) else scope.reshape(x, list(shape))
    return scope.as_type(x, kind)
