"""Rewrite the bindings of Relax functions: what graph passes share.

A Relax function in A-normal form is a list of bindings `variable = value`.  `rewrite` passes every
value to a rule, which returns a replacement of the same type, or None.  Operands are variables or
constants; a rule sees through variables with the `Graph`.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import tvm
import tvm_ffi
from tvm import relax, tirx

from hybridc.compiler.interfaces import IRModule, PrimFunc
from hybridc.compiler.model import Array
from hybridc.compiler.runtime import tensors

Expr = Any  # a Relax expression; TVM ships no types
Extent = Any  # a size: an int, or a TIR expression where it is open
_SHARED_BYTES = 2**20  # constants from this size on take no memory of their own


@dataclass
class Graph:
    """The bindings of one function: the value of each variable, and how often it is used.

    `uses` counts the bindings (and the function's result) that read a variable.
    """

    values: dict[Expr, Expr] = field(default_factory=dict[Expr, Expr])
    uses: Counter[Expr] = field(default_factory=Counter[Expr])

    def value(self, expr: Expr) -> Expr:
        """The value that `expr` is bound to, through any chain of variables; else `expr`."""
        while (bound := self.values.get(expr)) is not None:
            expr = bound
        return expr

    def call(self, expr: Expr, *operators: str) -> Expr | None:
        """The call that computes `expr`, if it is one of these operators; else None."""
        value = self.value(expr)
        return value if operator(value) in operators else None

    def constant(self, expr: Expr) -> Array | None:
        """The tensor, if `expr` is a constant; else None."""
        value = self.value(expr)
        if not isinstance(value, tvm.ir.GenericConst):
            return None
        array = tensors.view(value.value)
        array.flags.writeable = False
        return array

    def only_use(self, expr: Expr) -> bool:
        """Whether this variable is read in one place only."""
        return self.uses[expr] <= 1


Rule = Callable[[Expr, Graph], Expr | None]


def rewrite(module: IRModule, rule: Rule) -> IRModule:
    """Apply a rule to every binding of every Relax function until it changes nothing.

    Bindings inside branches are left alone.  Bindings that become unused are removed.  Returns the
    given module itself if the rule changes nothing.
    """
    while changed := _round(module, rule):
        module = tidy(updated(module, changed))
    return module


def updated(module: IRModule, functions: dict[Any, Any]) -> IRModule:
    """Copy a module with some of its functions replaced."""
    return tvm.IRModule(dict(module.functions_items()) | functions, attrs=module.attrs)


def rewrite_kernels(module: IRModule, rule: Callable[[PrimFunc], PrimFunc]) -> IRModule:
    """Apply a rule to every loop nest; returns the given module itself if it changes none."""
    kernels = {
        var: new
        for var, func in module.functions_items()
        if isinstance(func, tirx.PrimFunc) and (new := rule(func)) is not func
    }
    return updated(module, kernels) if kernels else module


def with_blocks(function: Expr, blocks: Sequence[Any]) -> Expr:
    """The same function with other blocks of bindings."""
    body = relax.SeqExpr(blocks, function.body.body)
    return relax.Function(function.params, body, function.ret_ty, function.is_pure, function.attrs)


def tidy(module: IRModule) -> IRModule:
    """Restore A-normal form: no nested calls, no second names, no unused bindings."""
    module = relax.transform.CanonicalizeBindings()(relax.transform.Normalize()(module))
    used = {
        variable: relax.analysis.remove_all_unused(function)
        for variable, function in relax_functions(module)
    }
    return updated(module, used)


def unless_same(before: IRModule, after: IRModule) -> IRModule:
    """The module before, if the one after is structurally equal; else the one after."""
    return before if tvm_ffi.structural_equal(before, after, map_free_vars=True) else after


def relax_functions(module: IRModule) -> Iterator[tuple[Any, Any]]:
    """The graph-level functions of a module; loop nests are left out."""
    for variable, function in module.functions_items():
        if isinstance(function, relax.Function):
            yield variable, function


def bindings_of(function: Expr) -> Iterator[Expr]:
    """Every binding of a function in order, branches left out."""
    for block in function.body.blocks:
        yield from block.bindings


def operator(expr: Expr) -> str:
    """The name of the operator that `expr` calls, without `relax.`; "" if it is not a call."""
    if isinstance(expr, tvm.ir.Call) and isinstance(expr.op, tvm.ir.Op):
        return str(expr.op.name).removeprefix("relax.")
    return ""


def calls(module: IRModule, *operators: str) -> bool:
    """Whether a Relax function calls one of these operators, branches left out."""
    return any(
        operator(binding.value) in operators
        for _, function in relax_functions(module)
        for binding in bindings_of(function)
    )


def computes_in(module: IRModule, dtype: str) -> bool:
    """Whether a Relax function computes a tensor of this type, branches left out."""
    return any(
        str(getattr(binding.var.ty, "dtype", "")) == dtype
        for _, function in relax_functions(module)
        for binding in bindings_of(function)
    )


def open_shape(expr: Expr) -> tuple[Extent, ...]:
    """The shape of a tensor expression, for code that distinguishes open sizes."""
    return tuple(extent_of(extent) for extent in expr.ty.shape.values)


def shape(expr: Expr) -> tuple[int, ...]:
    """The shape of a tensor expression, for code that treats every size as a number.

    An open size is a TIR expression here too.  It works as a number as far as possible: it can be
    added and multiplied, equals only itself, and raises when it is ordered.
    """
    return open_shape(expr)


def are_known(sizes: Iterable[Extent]) -> bool:
    """Whether all these sizes are numbers, and none is open."""
    return all(isinstance(size, int) for size in sizes)


def extent_of(extent: Expr) -> Extent:
    """A size as a number, or as an expression if it is open."""
    return int(extent) if isinstance(extent, tirx.IntImm) else extent


def opened(*shapes: Any) -> Any:
    """Shapes for a kernel's parameters: each open size is a variable, equal ones the same."""
    variables: dict[str, Any] = {}

    def variable(size: Any) -> Any:
        if isinstance(size, int):
            return size
        if str(size) not in variables:
            variables[str(size)] = tirx.Var(f"n{len(variables)}", "int64")
        return variables[str(size)]

    found = [tuple(map(variable, each)) for each in shapes]
    return found[0] if len(found) == 1 else found


def is_open(expr: Expr) -> bool:
    """Whether a tensor has a size that is not known."""
    extents = getattr(expr.ty.shape, "values", None)
    return extents is None or not all(isinstance(extent, tirx.IntImm) for extent in extents)


def constant(array: Array, dtype: str) -> Expr:
    """A constant of exactly this dtype; relax.const alone narrows int64 and float64.

    A large array with the alignment that TVM requires is not copied, and must not be modified.
    """
    array = array.astype(dtype, copy=False)
    big = array.nbytes >= _SHARED_BYTES
    tensor = tensors.to_tensor(array) if big else tvm.runtime.tensor(array)
    return relax.const(tensor, dtype)


def computed(*shapes: Any) -> tuple[list[Any], list[Any]]:
    """Shapes for a kernel's parameter and its result, with sizes computed of variables by name.

    Also those variables that are no size of the first shape: the kernel is given them.
    """
    variables: dict[str, Any] = {}

    def renamed(var: Any) -> Any:
        return variables.setdefault(var.name, tirx.Var(var.name, "int64"))

    def sized(size: Any) -> Any:
        whole = isinstance(size, int)
        return size if whole else tvm_ffi.structural_map(size, (tirx.Var, renamed))

    found = [tuple(map(sized, each)) for each in shapes]
    plain = [size for size in found[0] if isinstance(size, tirx.Var)]
    return found, [v for v in variables.values() if not any(v.same_as(size) for size in plain)]


def with_attributes(call: Expr, operands: Sequence[Expr], **changes: Any) -> Expr:
    """The same operator on other operands, with some of its attributes changed."""
    fields = type(call.attrs).__tvm_ffi_type_info__.fields
    attributes = {field.name: getattr(call.attrs, field.name) for field in fields} | changes
    attrs = tvm.ir.make_node(call.op.attrs_type_key, **attributes)
    return tvm.ir.Call(call.op, operands, attrs, call.ty_args)


def _round(module: IRModule, rule: Rule) -> dict[Any, Any]:
    """Offer every binding once; return the functions that changed."""
    changed: dict[Any, Any] = {}
    for variable, function in relax_functions(module):
        graph = graph_of(function)
        blocks = [_rewrite_block(block, rule, graph) for block in function.body.blocks]
        if any(block is not None for block in blocks):
            kept = [new or old for new, old in zip(blocks, function.body.blocks, strict=True)]
            changed[variable] = relax.Function(
                function.params,
                relax.SeqExpr(kept, function.body.body),
                function.ret_ty,
                function.is_pure,
                function.attrs,
            )
    return changed


def _rewrite_block(block: Expr, rule: Rule, graph: Graph) -> Expr | None:
    bindings = list(block.bindings)
    changed = False
    for index, binding in enumerate(bindings):
        if not isinstance(binding, relax.VarBinding) or is_atom(binding.value):
            continue
        replacement = rule(binding.value, graph)
        if replacement is not None:
            bindings[index] = relax.VarBinding(binding.var, replacement)
            _note(graph, binding.var, replacement)
            changed = True
    return type(block)(bindings) if changed else None


def _note(graph: Graph, variable: Expr, replacement: Expr) -> None:
    """Let later rules of this round see through a variable that is now another or a constant."""
    if isinstance(replacement, relax.Var):
        graph.uses[replacement] += graph.uses[variable] - 1
    if is_atom(replacement):
        graph.values[variable] = replacement


def is_atom(value: Expr) -> bool:
    """Whether an expression is a variable or a constant."""
    return isinstance(value, relax.Var | tvm.ir.GenericConst)


def graph_of(function: Expr) -> Graph:
    """The bindings of one function."""
    graph = Graph()
    for binding in bindings_of(function):
        if isinstance(binding, relax.VarBinding):
            graph.values[binding.var] = binding.value
        graph.uses.update(relax.analysis.free_vars(binding.value))
    graph.uses.update(relax.analysis.free_vars(function.body.body))
    return graph
