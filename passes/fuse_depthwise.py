"""Fuse a depthwise convolution with the 1x1 convolutions before and after it."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import tvm
from tvm import relax
from tvm.s_tir import SBlock
from tvm_ffi import structural_walk

from hybridc.compiler import strips
from hybridc.compiler.interfaces import Context, IRModule, Pass, PrimFunc
from hybridc.compiler.ir.rewrite import bindings_of, operator, relax_functions, shape, updated
from hybridc.compiler.kernels.convolutions import bottleneck
from hybridc.compiler.kernels.convolutions.bottleneck import Bottleneck
from hybridc.compiler.kernels.tensor_expressions import KERNEL
from hybridc.compiler.target import Target


@dataclass(frozen=True)
class FuseDepthwise(Pass):
    """Fuse a depthwise convolution with the 1x1 convolutions before and after it.

    Each task of the kernel then takes some image rows through all stages, and intermediate results
    stay in cache.  Rows that windows share with the next task are computed twice; an analytic
    estimate decides where that costs less than the trips to memory.
    """

    def apply(self, module: IRModule, context: Context) -> IRModule:
        """Join what `fuse` made of each chain into one kernel."""
        joined: dict[Any, Any] = {}
        for variable, function in relax_functions(module):
            chains = list(_apart(module, _Calls(module, function).chains(), context.target))
            if chains:
                joined[variable] = chains
        if not joined:
            return module
        return relax.transform.FuseTIR()(_grouped(module, joined))


@dataclass(frozen=True)
class _Call:
    """A kernel's call, and the arguments of it that are its data and its weights.

    `once` tells that only one block of the kernel, the first, reads the data.
    """

    variable: Any
    value: Any
    kind: str
    data: Any
    weight: Any
    once: bool


class _Calls:
    """The calls of products in a function, who reads whom."""

    def __init__(self, module: IRModule, function: Any) -> None:
        self._calls: dict[Any, _Call] = {}
        self._readers: dict[Any, list[Any]] = {}
        for binding in bindings_of(function):
            call = _call(module, binding)
            if call:
                self._calls[binding.var] = call
            for used in relax.analysis.free_vars(binding.value):
                self._readers.setdefault(used, []).append(binding.var)
        for used in relax.analysis.free_vars(function.body.body):
            self._readers.setdefault(used, []).append(None)

    def chains(self) -> Iterator[tuple[_Call, ...]]:
        """Every depthwise kernel with those 1x1 kernels that alone feed or read it."""
        for variable, call in self._calls.items():
            if call.kind != "depthwise-conv2d":
                continue
            before = self._calls.get(call.data)
            if before and not (before.kind == "dense" and self._alone(call)):
                before = None
            readers = self._readers.get(variable, [])
            behind = self._calls.get(readers[0]) if len(readers) == 1 else None
            if behind and not (behind.kind == "dense" and behind.data.same_as(variable)):
                behind = None
            if behind and not self._alone(behind):
                behind = None
            chain = tuple(part for part in (before, call, behind) if part)
            if len(chain) > 1:
                yield chain

    def _alone(self, call: _Call) -> bool:
        """Whether nothing but a kernel's product reads its data."""
        return call.once and len(self._readers[call.data]) == 1


def _call(module: IRModule, binding: Any) -> _Call | None:
    value = binding.value
    if operator(value) != "call_tir" or len(value.args) != 2:
        return None
    func = module[value.args[0]]
    products = [block for block in _blocks(func) if KERNEL in block.annotations]
    if len(products) != 1 or isinstance(value.ty, relax.TupleType) or not _plain(func):
        return None
    places = [_place(func, _origin(func, region.source)) for region in products[0].reads[:2]]
    if len(places) != 2 or None in places or len(shape(binding.var)) != 4:
        return None
    fields = value.args[1].fields
    data, weight = (fields[place] for place in places)
    param = func.params[places[0]]
    reads = sum(region.source.same_as(param) for block in _blocks(func) for region in block.reads)
    once = reads == 1 and sum(bool(field.same_as(data)) for field in fields) == 1
    return _Call(binding.var, value, str(products[0].annotations[KERNEL]), data, weight, once)


def _plain(func: PrimFunc) -> bool:
    """Whether all is fp32 of fixed sizes, and what follows computes one image, pixel by pixel."""
    if strips.has_open_sizes(func) or any(str(p.dtype) != "float32" for p in func.params):
        return False
    image = [int(extent) for extent in func.params[-1].shape]
    behind = [
        [int(axis.dom.extent) for axis in block.iter_vars]
        for block in _blocks(func)
        if KERNEL not in block.annotations and not str(block.name_hint).startswith("pad")
    ]
    return len(image) == 4 and all(extents == image for extents in behind)


def _blocks(func: PrimFunc) -> list[Any]:
    """Every block but the root, which has no axes."""
    found: list[Any] = []
    structural_walk(func.body, (SBlock, found.append))
    return [block for block in found if len(block.iter_vars)]


def _origin(func: PrimFunc, buffer: Any) -> Any:
    """What a padded operand is padded from; any other operand itself."""
    for block in _blocks(func):
        if str(block.name_hint).startswith("pad") and block.writes[0].source.same_as(buffer):
            return block.reads[0].source
    return buffer


def _place(func: PrimFunc, buffer: Any) -> int | None:
    """Which parameter a buffer is."""
    places = (i for i, param in enumerate(func.params) if param.same_as(buffer))
    return next(places, None)


def _apart(
    module: IRModule, chains: Iterable[tuple[_Call, ...]], target: Target
) -> Iterator[tuple[_Call, ...]]:
    """The parts of chains that are better one kernel; no call is in two.

    A 1x1 convolution between two depthwise ones is behind the first and before the second.
    """
    taken: set[Any] = set()
    for chain in chains:
        free = tuple(call for call in chain if call.variable not in taken)
        part = _worth_joining(module, free, target) if len(free) > 1 else ()
        taken.update(call.variable for call in part)
        if part:
            yield part


def _worth_joining(module: IRModule, chain: tuple[_Call, ...], target: Target) -> tuple[_Call, ...]:
    """The part of a chain that is better one kernel; empty if none is."""
    part = bottleneck.best(_sizes(module, chain), target)
    if part is None:
        return ()
    place = next(i for i, call in enumerate(chain) if call.kind != "dense")
    first = place - 1 if part.inputs else place
    return chain[first : place + 2 if part.outputs else place + 1]


def _sizes(module: IRModule, chain: Sequence[_Call]) -> Bottleneck:
    place = next(i for i, call in enumerate(chain) if call.kind != "dense")
    depthwise = chain[place]
    func = module[depthwise.value.args[0]]
    pads = [block for block in _blocks(func) if str(block.name_hint).startswith("pad")]
    before, behind = shape(depthwise.data), shape(depthwise.variable)
    window = shape(depthwise.weight)
    padded = [int(extent) for extent in pads[0].writes[0].source.shape] if pads else before
    return Bottleneck(
        images=before[0],
        size=(before[1], before[2]),
        output_size=(behind[1], behind[2]),
        inputs=shape(chain[0].data)[3] if place else 0,
        channels=behind[3],
        outputs=shape(chain[-1].variable)[3] if place + 1 < len(chain) else 0,
        window=(window[0], window[1]),
        stride=bottleneck.stride(padded[1], window[0], behind[1]),
        top=(padded[1] - before[1]) // 2,
    )


def _grouped(module: IRModule, joined: dict[Any, list[tuple[_Call, ...]]]) -> IRModule:
    """The module with each chain in a function of its own, which `FuseTIR` makes one kernel."""
    builder = relax.BlockBuilder(module)
    functions: dict[Any, Any] = {}
    for variable, chains in joined.items():
        replaced: dict[Any, Any] = {}
        for chain in chains:
            inner = {call.variable for call in chain[:-1]}
            outer = _arguments(chain, inner)
            group = builder.add_func(_group(chain, outer), "fused_depthwise")
            replaced |= dict.fromkeys(inner)
            replaced[chain[-1].variable] = tvm.ir.Call(group, outer)
        functions[variable] = _without(module[variable], replaced)
    return relax.transform.Normalize()(updated(builder.get(), functions))


def _arguments(chain: Sequence[_Call], inner: set[Any]) -> list[Any]:
    """What the kernels of a chain read besides each other, each once."""
    every = [argument for call in chain for argument in call.value.args[1].fields]
    found: list[Any] = []
    for argument in every:
        known = any(argument.same_as(other) for other in found)
        if not known and not any(argument.same_as(var) for var in inner):
            found.append(argument)
    return found


def _group(chain: Sequence[_Call], outer: Sequence[Any]) -> Any:
    """A function of the chain's calls."""
    params = [relax.Var(f"p{i}", argument.ty) for i, argument in enumerate(outer)]
    builder = relax.BlockBuilder()
    values: list[tuple[Any, Any]] = list(zip(outer, params, strict=True))

    def named(argument: Any) -> Any:
        return next(value for known, value in values if argument.same_as(known))

    with builder.function("group", params, attrs={"Primitive": 1}):
        with builder.dataflow():
            for call in chain:
                fields = [named(argument) for argument in call.value.args[1].fields]
                call_in_group = relax.call_tir(call.value.args[0], fields, call.value.ty)
                emit = builder.emit_output if call is chain[-1] else builder.emit
                values.append((call.variable, emit(call_in_group)))
        builder.emit_func_output(values[-1][1])
    return builder.get()["group"].without_attr("global_symbol")


def _without(function: Any, replaced: dict[Any, Any]) -> Any:
    """The function with some bindings' values replaced, or dropped where the value is None."""
    blocks: list[Any] = []
    for block in function.body.blocks:
        bindings = [
            relax.VarBinding(binding.var, replaced[binding.var])
            if binding.var in replaced
            else binding
            for binding in block.bindings
            if replaced.get(binding.var, binding) is not None
        ]
        blocks.append(type(block)(bindings))
    body = relax.SeqExpr(blocks, function.body.body)
    return relax.Function(function.params, body, function.ret_ty, function.is_pure, function.attrs)
