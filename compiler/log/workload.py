"""The canonical form of a kernel: what it computes, as JSON data of our own making.

Nothing of it comes from TVM's printer, serialiser or structural hash, nor from names, addresses,
spans or the order of a table, so that two processes, builds and versions of TVM give one form for
one computation.  Variables and buffers are numbered in the order in which they are met.  What TVM
infers (the reads and writes of blocks), what says how to run and not what (attributes of functions,
hints of TVM's own), and the width of loop counters stay out; what our rules go by
(`hybridc.kernel`, `hybridc.shared`) belongs to it.

In a kernel of 8-bit tensors the numbers that calibration finds, scales and zero points, stand as
what they are and not with their values: no schedule depends on these, and a measurement of one
calibration is one of the next.
"""

from collections.abc import Callable, Iterator
from math import isfinite, log2
from types import MappingProxyType
from typing import Any

from hybridc.compiler.errors import PassError
from hybridc.compiler.interfaces import PrimFunc

Form = Any  # JSON data: lists, strings, numbers and None
VERSION = 1  # of the form; another version gives other keys

_BINARY = ("a", "b")
_BYTES = ("int8", "uint8")
# The fields of each kind of node that say what it computes, in the order in which they are read.
_FIELDS = MappingProxyType(
    {
        **dict.fromkeys(
            (
                *("Add", "Sub", "Mul", "Div", "Mod", "FloorDiv", "FloorMod", "Min", "Max"),
                *("EQ", "NE", "LT", "LE", "GT", "GE", "And", "Or"),
                *("LShift", "RShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor"),
            ),
            _BINARY,
        ),
        "Not": ("a",),
        "BitwiseNot": ("a",),
        "Select": ("condition", "true_value", "false_value"),
        "Let": ("var", "value", "body"),
        "Cast": ("dtype", "value"),
        "Ramp": ("base", "stride", "lanes"),
        "Broadcast": ("value", "lanes"),
        "Shuffle": ("vectors", "indices"),
        "StringImm": ("value",),
        "Range": ("min", "extent"),
        "IterVar": ("iter_type", "var", "dom"),
        "TensorLoad": ("source", "indices"),
        "TensorRegion": ("source", "region"),
        "Tuple": ("fields",),
        "BufferStore": ("buffer", "indices", "value"),
        "For": ("kind", "loop_var", "min", "extent", "step", "body"),
        "While": ("condition", "body"),
        "IfThenElse": ("condition", "then_case", "else_case"),
        "SeqStmt": ("seq",),
        "Evaluate": ("value",),
        "Bind": ("var", "value"),
        "AllocBuffer": ("buffer",),
        "DeclBuffer": ("buffer", "data"),
        "AttrStmt": ("attr_key", "value", "body"),
        "AssertStmt": ("condition",),
        "SBlockRealize": ("iter_values", "predicate", "block"),
        "SBlock": ("iter_vars", "alloc_buffers", "match_buffers", "annotations", "init", "body"),
        "MatchBufferRegion": ("buffer", "source"),
    }
)
_OURS = ("hybridc.kernel", "hybridc.shared")
# Enumerations whose numbers are TVM's own affair.
_CODES = MappingProxyType(
    {
        "iter_type": ("spatial", "thread", "reduce", "ordered", "opaque"),
        "kind": ("serial", "parallel", "vectorized", "unrolled", "thread"),
    }
)


def form(func: PrimFunc) -> Form:
    """The canonical form of a kernel that no rule has scheduled.

    Raises PassError if the kernel holds a kind of node that the form has no words for.
    """
    walk = _Walk(any(_dtype(param) in _BYTES for param in func.params))
    return ["kernel", VERSION, [walk(param) for param in func.params], walk(func.body)]


def skeleton(data: Form) -> Form:
    """A form without its whole numbers: kernels of one kind and other sizes share it."""
    if isinstance(data, list):
        return [skeleton(item) for item in data]
    return "#" if _is_size(data) else data


def sizes(data: Form) -> Iterator[int]:
    """The whole numbers of a form, in order: what two forms of one skeleton may differ in."""
    if isinstance(data, list):
        for item in data[1:] if data[:1] == ["kernel"] else data:
            yield from sizes(item)
    elif _is_size(data):
        yield data


def distance(one: Form, other: Form) -> float:
    """How far two forms of one skeleton are apart: the sum of the sizes' ratios, in octaves."""
    pairs = zip(sizes(one), sizes(other), strict=True)
    return sum(abs(log2(1 + abs(a)) - log2(1 + abs(b))) for a, b in pairs)


def parameters(data: Form) -> list[str]:
    """A kernel's arguments for people: `float32[1, 56, 56, 64]`."""
    return [
        f"{entry[2]}{entry[3]}" if entry[:1] == ["buffer"] else f"{entry[2]}" for entry in data[2]
    ]


def _is_size(data: Form) -> bool:
    return isinstance(data, int) and not isinstance(data, bool)


class _Walk:
    """Turns nodes into lists that begin with the node's kind."""

    def __init__(self, quantised: bool = False) -> None:
        self._known: dict[int, str] = {}
        self.quantised = quantised

    def __call__(self, node: Any) -> Form:
        """The form of a node, of a list of nodes, or of a plain value."""
        if node is None or isinstance(node, bool | int | str):
            return node if node is None else _plain(node)
        kind = type(node).__name__
        if (special := _SPECIAL.get(kind)) is not None:
            return special(self, node)
        if kind in _FIELDS:
            return [kind, *(self._field(node, name) for name in _FIELDS[kind])]
        if kind in ("Array", "list", "tuple"):
            return [self(item) for item in node]
        raise PassError(f"a kernel with {kind} has no workload key: the canonical form lacks it")

    def _field(self, node: Any, name: str) -> Form:
        if name == "dtype":
            return _dtype(node)
        if name == "annotations":
            return [[key, self(node.annotations[key])] for key in _OURS if key in node.annotations]
        value = getattr(node, name)
        if name in _CODES:
            codes = _CODES[name]
            return codes[int(value)] if int(value) < len(codes) else f"{name} {int(value)}"
        return self(value)

    def var(self, node: Any) -> Form:
        """A number at every sight; at the first one also what the variable is."""
        handle = hash(node)  # the node's address; two wrappers of one node share it
        if handle in self._known:
            return self._known[handle]
        name = self._known[handle] = f"v{len(self._known)}"
        kind = type(node.ty).__name__
        if kind != "BufferType":
            # Counters and indices may have 32 or 64 bits, as the version of TVM likes.
            dtype = _dtype(node)
            return ["var", name, "int" if dtype in ("int32", "int64") else dtype]
        shape, strides = self(node.ty.shape), self(node.ty.strides)
        return ["buffer", name, _dtype(node.ty), shape, strides, str(node.ty.storage_scope)]

    def call(self, node: Any) -> Form:
        """An intrinsic by its name without TVM's dialect, whose names change."""
        name = getattr(node.op, "name", None) or node.op.name_hint
        return ["Call", str(name).rpartition(".")[2], _dtype(node), self(node.args)]


def _plain(value: Any) -> Form:
    if isinstance(value, bool):
        return value
    return int(value) if isinstance(value, int) else str(value)


def _dtype(node: Any) -> str:
    """`float32`; the form's own word where an expression is no number."""
    return str(getattr(getattr(node, "ty", node), "dtype", "other"))


def _float(walk: _Walk, node: Any) -> Form:
    """Every bit of it, in the notation of C; 0, 1 and infinities are no scales."""
    value = float(node.value)
    scale = walk.quantised and value not in (0.0, 1.0) and isfinite(value)
    return ["FloatImm", _dtype(node), "scale" if scale else value.hex()]


def _integer(walk: _Walk, node: Any) -> Form:
    if walk.quantised and _dtype(node) in _BYTES:
        return "zero"
    return bool(node.value) if _dtype(node) == "bool" else int(node.value)


_SPECIAL: MappingProxyType[str, Callable[[_Walk, Any], Form]] = MappingProxyType(
    {
        "Var": _Walk.var,
        "Call": _Walk.call,
        "FloatImm": _float,
        "IntImm": _integer,
    }
)
