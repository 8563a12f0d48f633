"""Find the products of a graph that a library may compute, each with what follows it."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tvm
from tvm import relax, tirx

from hybridc.compiler.interfaces import IRModule
from hybridc.compiler.ir.rewrite import Expr, graph_of, is_open, operator
from hybridc.compiler.offload.subgraph import Operand, Step, Subgraph

PRODUCTS = ("nn.conv2d", "matmul")
# What may follow a product in one subgraph, and how many of these.
EPILOGUE = (
    *("add", "subtract", "multiply", "divide", "maximum", "minimum"),
    *("nn.relu", "nn.gelu", "nn.silu"),
)
_MOST = 6
# What may lie between the two products of attention.
_SCORES = ("multiply", "divide", "add", "nn.softmax")
# Attributes of operators that say what is computed; a layout that is not named here is the usual.
_ATTRIBUTES = {
    "nn.conv2d": (
        *("strides", "padding", "dilation", "groups"),
        *("data_layout", "kernel_layout", "out_layout", "out_dtype"),
    ),
    "matmul": ("out_dtype",),
    "nn.softmax": ("axis",),
    "permute_dims": ("axes",),
}


@dataclass(frozen=True, eq=False)
class Found:
    """A subgraph where it stands: the bindings that compute it, and what it reads."""

    graph: Subgraph
    operands: tuple[Expr, ...]
    bindings: tuple[Any, ...]

    @property
    def result(self) -> Any:
        """The variable that holds what it computes."""
        return self.bindings[-1].var


def find(module: IRModule, attention: bool = False) -> Iterator[Found]:
    """The subgraphs of `main`, in order; no binding is in two of them.

    Those of `attention` alone, where that is asked for.
    """
    main, taken = module["main"], set[Any]()
    for block in main.body.blocks:
        finder = _Finder(main, [b for b in block.bindings if isinstance(b, relax.VarBinding)])
        for binding in finder.bindings:
            if binding.var in taken or operator(binding.value) not in PRODUCTS:
                continue
            group = finder.attention(binding)
            if not group and not attention:
                group = finder.product(binding)
            found = None if not group or taken & _vars(group) else described(group)
            if found is not None:
                taken |= _vars(group)
                yield found


def rewritten(module: IRModule, calls: Mapping[Any, Expr], gone: set[Any]) -> IRModule:
    """The module with what `calls` has for variables of `main`, and without those that are gone."""
    main = module["main"]
    blocks: list[Any] = []
    for block in main.body.blocks:
        kept = [
            relax.VarBinding(binding.var, calls[binding.var]) if binding.var in calls else binding
            for binding in block.bindings
            if binding.var not in gone
        ]
        blocks.append(type(block)(kept))
    body = relax.SeqExpr(blocks, main.body.body)
    clone = module.clone()
    clone["main"] = relax.Function(main.params, body, main.ret_ty, main.is_pure, main.attrs)
    return clone


class _Finder:
    """The bindings of one block, and who reads each variable."""

    def __init__(self, main: Any, bindings: Sequence[Any]) -> None:
        self.bindings, self._graph = bindings, graph_of(main)
        self._readers: dict[Any, list[Any]] = defaultdict(list)
        self._made = {binding.var: binding for binding in bindings}
        for binding in bindings:
            for var in relax.analysis.free_vars(binding.value):
                self._readers[var].append(binding)

    def product(self, product: Any) -> list[Any]:
        """A product and its epilogue."""
        group = [product]
        while len(group) <= _MOST and (following := self._next(group[-1])) is not None:
            group.append(following)
        return group

    def _next(self, binding: Any) -> Any | None:
        """The only reader of a variable, if it is elementwise and keeps shape and type."""
        readers = self._readers[binding.var]
        if len(readers) != 1 or self._graph.uses[binding.var] != 1:
            return None
        (reader,) = readers
        same = str(reader.var.ty) == str(binding.var.ty)
        return reader if same and operator(reader.value) in EPILOGUE else None

    def attention(self, scores: Any) -> list[Any]:
        """Scores, softmax and weighted values, with transposes around them; nothing if others.

        `scores` is the first product.
        """
        group, softmax = [scores], False
        while (following := self._only(group[-1])) is not None:
            name = operator(following.value)
            group.append(following)
            if name == "matmul":
                begins = group[-2].var.same_as(following.value.args[0])
                return self._with_transposes(group) if softmax and begins else []
            if name not in _SCORES or softmax:
                return []
            softmax = name == "nn.softmax"
        return []

    def _with_transposes(self, group: Sequence[Any]) -> list[Any]:
        """The group with the transposes of what its products read, and of its result."""
        first, last = group[0].value, group[-1].value
        read = [self._made.get(arg) for arg in (*first.args, last.args[1])]
        before = [b for b in read if b is not None and _is_transpose(b) and self._only(b)]
        after = self._only(group[-1])
        behind = [after] if after is not None and _is_transpose(after) else []
        places = {binding.var: place for place, binding in enumerate(self.bindings)}
        return sorted([*before, *group, *behind], key=lambda binding: places[binding.var])

    def _only(self, binding: Any) -> Any | None:
        readers = self._readers[binding.var]
        alone = len(readers) == 1 and self._graph.uses[binding.var] == 1
        return readers[0] if alone else None


def _is_transpose(binding: Any) -> bool:
    return operator(binding.value) == "permute_dims"


def _vars(bindings: Sequence[Any]) -> set[Any]:
    return {binding.var for binding in bindings}


def described(bindings: Sequence[Any]) -> Found | None:
    """The subgraph that bindings compute; None if sizes are open or an operand is no tensor."""
    numbers: dict[Any, int] = {}
    operands: list[Operand] = []
    exprs: list[Expr] = []
    own = {binding.var for binding in bindings}
    for binding in bindings:
        for argument in binding.value.args:
            if argument in own or argument in numbers:
                continue
            operand = _operand(argument)
            if operand is None:
                return None
            numbers[argument] = len(operands)
            operands.append(operand)
            exprs.append(argument)
    steps: list[Step] = []
    for binding in bindings:
        if not isinstance(binding.var.ty, relax.TensorType) or is_open(binding.var):
            return None
        call = binding.value
        sources = tuple(numbers[each] for each in call.args)
        shape = tuple(map(int, binding.var.ty.shape.values))
        dtype = str(binding.var.ty.dtype)
        steps.append(Step(shape, dtype, operator(call), sources, _attributes(call)))
        numbers[binding.var] = len(operands) + len(steps) - 1
    return Found(Subgraph(tuple(operands), tuple(steps)), tuple(exprs), tuple(bindings))


def _operand(expr: Expr) -> Operand | None:
    kind = expr.ty
    if not isinstance(kind, relax.TensorType) or is_open(expr):
        return None
    shape, dtype = tuple(map(int, kind.shape.values)), str(kind.dtype)
    if not isinstance(expr, tvm.ir.GenericConst):
        return Operand(shape, dtype)
    single = expr.value.numpy() if not shape or shape == (1,) else None
    number = float(single.reshape(-1)[0]) if single is not None else None
    return Operand(shape, dtype, constant=True, number=number)


def _attributes(call: Any) -> dict[str, Any]:
    """What is asked for beside the operands, as JSON data."""
    names = _ATTRIBUTES.get(operator(call), ())
    return {name: _plain(getattr(call.attrs, name)) for name in names}


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, tirx.IntImm):
        return int(value)
    return [_plain(each) for each in value] if hasattr(value, "__len__") else str(value)
