"""Accesses by their distance from the first element, where fused axes left divisions in them.

Fused axes leave quotients and remainders in each index.  Together these are one sum, but TVM's
lowering takes quotients apart first, so that of more than two axes divisions stay, and a vector is
loaded lane by lane.
"""

from typing import Any

import tvm
from tvm import s_tir, sym, tirx
from tvm.ir.expr import TensorLoad
from tvm_ffi import structural_map, structural_walk

from hybridc.compiler import strips
from hybridc.compiler.interfaces import PrimFunc
from hybridc.schedules.loops import access, vector_loops

# Axes of which TVM finds that they are fused.
_TWO = 2


def straightened(func: PrimFunc) -> PrimFunc:
    """A scheduled function whose accesses of parameters divide no more than they have to.

    A block that names no region of a buffer tells others that it counts in flat addresses.
    """
    if strips.has_gaps(func):
        return func
    params = [param for param in func.params if isinstance(param.ty, tirx.buffer.BufferType)]
    analyzer = sym.Analyzer()

    def bind(loop: Any) -> None:
        analyzer.bind(loop.loop_var, tvm.ir.Range(loop.min, loop.extent))

    def block(realize: Any) -> Any:
        return _Block(realize, params, analyzer).straightened() if realize.iter_values else realize

    structural_walk(func.body, (tirx.For, bind))
    return func.with_body(structural_map(func.body, (s_tir.SBlockRealize, block)))


class _Block:
    """One block, which gets an axis for each address that is no division any more."""

    def __init__(self, realize: Any, params: list[Any], analyzer: Any) -> None:
        self._realize, self._params, self._analyzer = realize, params, analyzer
        variables = [axis.var for axis in realize.block.iter_vars]
        self._bound = dict(zip(variables, realize.iter_values, strict=True))
        self._axes: list[tuple[Any, Any]] = []
        self._flat: list[Any] = []

    def straightened(self) -> Any:
        """The block with flat addresses; itself where none is simpler so."""
        old = self._realize.block
        body = structural_map(old.body, [(TensorLoad, self._load), (tirx.BufferStore, self._store)])
        if not self._flat:
            return self._realize
        block = s_tir.SBlock(
            [*old.iter_vars, *(axis for axis, _ in self._axes)],
            self._declared(old.reads),
            self._declared(old.writes),
            old.name_hint,
            body,
            old.init,
            old.alloc_buffers,
            old.match_buffers,
            old.annotations,
        )
        values = [*self._realize.iter_values, *(value for _, value in self._axes)]
        return s_tir.SBlockRealize(values, self._realize.predicate, block)

    def _load(self, node: Any) -> Any:
        found = self._place(node.source, node.indices)
        return node if found is None else tirx.BufferLoad(node.source, found)

    def _store(self, node: Any) -> Any:
        found = self._place(node.buffer, node.indices)
        return node if found is None else tirx.BufferStore(node.buffer, node.value, found)

    def _place(self, buffer: Any, indices: Any) -> list[Any] | None:
        if not any(buffer.same_as(param) for param in self._params):
            return None
        bound = [vector_loops.substitute(index, self._bound) for index in indices]
        # Along an axis that is not fused vectors are whole, and a part of a buffer may be read.
        if sum(map(_divides, bound)) <= _TWO or not _divides(bound[-1]):
            return None
        flat = self._analyzer.simplify(access.distance(bound, buffer))
        if _divides(flat):
            return None
        self._flat.append(buffer)
        return [*[tirx.const(0, str(flat.ty.dtype))] * (len(indices) - 1), self._axis(flat)]

    def _axis(self, flat: Any) -> Any:
        """The axis bound to an address."""
        for axis, value in self._axes:
            if self._analyzer.can_prove_equal(value, flat):
                return axis.var
        var = tirx.Var("flat", flat.ty)
        domain = tvm.ir.Range(tirx.const(0, str(flat.ty.dtype)), tirx.max_value(str(flat.ty.dtype)))
        self._axes.append((tirx.IterVar(domain, var, tirx.IterVar.DataPar), flat))
        return var

    def _declared(self, regions: Any) -> list[Any]:
        return [each for each in regions if not any(each.source.same_as(own) for own in self._flat)]


def _divides(index: Any) -> bool:
    found: list[Any] = []
    structural_walk(index, (access.DIVISIONS, found.append))
    return bool(found)
