"""What a `main` does: where its tensors lie, and which kernels it calls."""

from dataclasses import dataclass, field
from typing import Any

import tvm
from tvm import relax, tirx

from hybridc.compiler.ir.rewrite import bindings_of, operator

BOUNDARY = 64  # bytes; storages begin on multiples of it


@dataclass(frozen=True)
class Place:
    """Where a tensor lies: in what a variable of `main` holds, or in the storage of all (None).

    A storage of open size is a holder of its own.
    """

    holder: Any
    offset: int = 0

    def at(self, offset: int) -> "Place":
        """The place so many bytes behind."""
        return Place(self.holder, self.offset + offset)


@dataclass
class Course:
    """What `main` does: `places` of its tensors, the `calls` of kernels, and what is left to it.

    `kept` are bindings that take out a weight or make an output, `renames` those that give a tensor
    another name or shape, `tuples` what such names hold.  `weights` are the variables that hold
    one, `size` are the bytes of all storages but those of open size, which are in `storages`.
    """

    places: dict[Any, Place] = field(default_factory=dict[Any, Place])
    calls: list[tuple[str, list[Any]]] = field(default_factory=list[tuple[str, list[Any]]])
    tuples: dict[Any, list[Any]] = field(default_factory=dict[Any, list[Any]])
    kept: list[Any] = field(default_factory=list[Any])
    renames: list[Any] = field(default_factory=list[Any])
    weights: set[Any] = field(default_factory=set[Any])
    storages: dict[Any, Any] = field(default_factory=dict[Any, Any])
    size: int = 0

    @property
    def is_fixed(self) -> bool:
        """Whether all sizes are known."""
        return not self.storages and all(map(_is_fixed, self.places))

    def follow(self, binding: Any) -> bool:
        """Take one binding in; False if it is more than memory and calls of kernels."""
        value = binding.value
        match operator(value):
            case "memory.alloc_storage":
                return self._storage(binding)
            case "memory.alloc_tensor":
                storage, offset = value.args[:2]
                self.places[binding.var] = self.places[storage].at(int(offset.value))
                return True
            case "builtin.alloc_tensor":
                return self._keep(binding)
            case "reshape":
                return self._rename(binding, value.args[0])
            case _:
                return self._plain(binding)

    def is_weight(self, tensor: Any) -> bool:
        """Whether a tensor is one of the weights, under any name."""
        return tensor in self.places and self.places[tensor].holder in self.weights

    def lasting(self, result: Any) -> bool:
        """Whether what is returned lies in no storage, which the next call writes again."""
        if isinstance(result, tvm.ir.Tuple) or result in self.tuples:
            fields = self.tuples.get(result) or result.fields
            return all(map(self.lasting, fields))
        return result not in self.places or self.places[result].holder not in {None, *self.storages}

    def _plain(self, binding: Any) -> bool:
        value = binding.value
        if isinstance(value, relax.Var):
            return self._rename(binding, value)
        if isinstance(value, tvm.ir.TupleGetItem):
            fields = self.tuples.get(value.tuple_value)  # None of the parameter with the weights
            if fields is None:
                self.weights.add(binding.var)
                return self._keep(binding)
            tensor = fields[value.index]
            return self._rename(relax.VarBinding(binding.var, tensor), tensor)
        if isinstance(value, tvm.ir.Tuple):
            self.tuples[binding.var] = list(value.fields)
            self.renames.append(binding)
            return True
        return self._call(value)

    def _storage(self, binding: Any) -> bool:
        (size,) = binding.value.args[0].values
        if not isinstance(size, tirx.IntImm):
            self.places[binding.var] = Place(binding.var)
            self.storages[binding.var] = size
            return True
        self.places[binding.var] = Place(None, self.size)
        self.size += -(-int(size) // BOUNDARY) * BOUNDARY
        return True

    def _keep(self, binding: Any) -> bool:
        self.kept.append(binding)
        self.places[binding.var] = Place(binding.var)
        return True

    def _rename(self, binding: Any, tensor: Any) -> bool:
        if tensor not in self.places:
            return False
        self.places[binding.var] = self.places[tensor]
        self.renames.append(binding)
        return True

    def _call(self, value: Any) -> bool:
        if not isinstance(value, tvm.ir.Call) or not isinstance(value.op, tvm.ir.GlobalVar):
            return False
        if not all(argument in self.places or _is_size(argument) for argument in value.args):
            return False
        self.calls.append((value.op.name_hint, list(value.args)))
        return True


def read(main: Any) -> Course | None:
    """Follow a function; None if more is to be done than to call kernels."""
    course = Course()
    course.places |= {param: Place(param) for param in main.params if _is_tensor(param)}
    for binding in bindings_of(main):
        if not isinstance(binding, relax.VarBinding) or not course.follow(binding):
            return None
    return course if course.lasting(main.body.body) else None


def _is_tensor(var: Any) -> bool:
    return isinstance(var.ty, relax.TensorType)


def _is_size(argument: Any) -> bool:
    """Whether an argument is a number that is computed of open sizes."""
    return isinstance(argument.ty, tvm.ir.PrimType) and not isinstance(argument, tirx.IntImm)


def _is_fixed(var: Any) -> bool:
    if isinstance(var.ty, relax.AnyType):  # a storage
        return True
    values = getattr(getattr(var.ty, "shape", None), "values", None)
    return values is not None and all(isinstance(size, tirx.IntImm) for size in values)
