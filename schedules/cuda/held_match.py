"""Which kernels of row stages may keep their rows in registers: see `held_form.py`."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from math import prod
from typing import Any

from tvm import tirx
from tvm.ir.expr import TensorLoad
from tvm.ir.prim import expr as prim
from tvm_ffi import structural_map, structural_walk

from hybridc.compiler.interfaces import PrimFunc
from hybridc.schedules.cuda.held_form import SIZES, Form, Held, Places, Stage, alike, same
from hybridc.schedules.cuda.product_kernel import substituted
from hybridc.schedules.loops import access, transforms
from hybridc.schedules.loops.analysis import Block
from hybridc.schedules.rows.row_stages import Rows

_WIDTHS = (16, 8, 4, 2)
_COMBINERS = (prim.Add, prim.Max, prim.Min)
# What shuffles pass between the lanes of a warp.
_REDUCED = frozenset({"float32", "int32", "float16", "bfloat16"})
Expr = Any


def analyse(rows: Rows, stored: Sequence[str]) -> Form | None:
    """The kernel in terms of rows and elements; None where it cannot be told so.

    `stored` are the elementwise stages that are kept; the others are computed again.
    """
    if rows.apart or not rows.along:
        return None
    schedule = transforms.new_schedule(rows.staged)
    names = {each.name for each in transforms.blocks(schedule) if each.reduction} | {*stored}
    for name in reversed([name for name in rows.stages if name not in names]):
        schedule.compute_inline(name)
    blocks = {block.name: block for block in transforms.blocks(schedule)}
    order = [blocks[name] for name in (*rows.stages, rows.output) if name in blocks]
    depths = {prod(block.reduction.values()) for block in order if block.reduction}
    if len(depths) != 1 or len(order) != len(blocks):
        return None
    index = next(axis for block in order for axis in block.axes).ty
    places = Places(tirx.Var("row", index), tirx.Var("element", index))
    stages = [_stage(block, rows.kept, places) for block in order]
    count = prod(next(block for block in order if block.reduction).spatial.values())
    (length,) = depths
    sizes = [prod(block.axes.values()) for block in order]
    return _form(rows.func, places, (count, length), stages, sizes)


def _form(
    func: PrimFunc,
    places: Places,
    shape: tuple[int, int],
    stages: Sequence[Stage | None],
    sizes: Sequence[int],
) -> Form | None:
    """The form of these stages, which have so many elements each."""
    count, length = shape
    told = [stage for stage in stages if stage is not None]
    if len(told) != len(stages):
        return None
    whole = [
        size == (count * length if s.inner else count) for s, size in zip(told, sizes, strict=True)
    ]
    if not all(whole) or not all(_follows(stage, told[:i]) for i, stage in enumerate(told)):
        return None
    held = list(_held(told, places))
    *inner, output = told
    accesses = [(each.indices, each.source) for each in held]
    if output.inner:
        accesses.append((output.indices, output.buffer))
    if any(str(buffer.dtype) not in SIZES for _, buffer in accesses):
        return None
    if any(stage.dtype not in SIZES for stage in told):
        return None
    width = _width(accesses, places, length)
    return Form(
        func,
        places,
        count,
        length,
        width,
        tuple(inner),
        replace(
            output, vector=output.inner and places.vector(output.indices, output.buffer, width)
        ),
        tuple(replace(x, vector=places.vector(x.indices, x.source, width)) for x in held),
    )


def _stage(block: Block, kept: Sequence[int], places: Places) -> Stage | None:
    """A block's store by row and element; None where it binds variables or combines otherwise."""
    lets: list[Any] = []
    structural_walk(block.body, (prim.Let, lets.append))
    if lets:
        return None
    spatial = list(block.spatial.items())
    if block.reduction:
        numbering, inner = spatial, list(block.reduction.items())
    else:
        numbering = [axis for place, axis in enumerate(spatial) if place in kept]
        inner = [axis for place, axis in enumerate(spatial) if place not in kept]
    axes = {**_unflatten(places.row, numbering), **_unflatten(places.element, inner)}
    store = block.body
    indices = tuple(access.simplify(substituted(index, axes)) for index in store.indices)
    value = _simple(substituted(store.value, axes))
    if not block.reduction:
        return Stage(block.name, store.buffer, indices, value, bool(inner))
    return _reduction(Stage(block.name, store.buffer, indices, value, True), block.node.init)


def _reduction(stage: Stage, init: Any) -> Stage | None:
    """A stage whose value combines what is there with another value; None if it does not."""
    kind = next((kind for kind in _COMBINERS if isinstance(stage.value, kind)), None)
    if kind is None or stage.dtype not in _REDUCED or not isinstance(init, tirx.BufferStore):
        return None
    sides = (stage.value.a, stage.value.b)
    own = [
        side for side in sides if isinstance(side, TensorLoad) and side.source.same_as(stage.buffer)
    ]
    others = [side for side in sides if not any(side.same_as(each) for each in own)]
    if len(own) != 1 or len(others) != 1:
        return None
    made = replace(stage, value=others[0], kind=kind, start=init.value)
    return None if any(x.source.same_as(stage.buffer) for x in made.loads) else made


def _simple(value: Expr) -> Expr:
    """An expression whose indices are simplified."""

    def load(node: Any) -> Any:
        return tirx.BufferLoad(node.source, [access.simplify(index) for index in node.indices])

    return structural_map(value, (TensorLoad, load))


def _unflatten(flat: Expr, axes: Sequence[tuple[Any, int]]) -> dict[Any, Expr]:
    """The axes' values at element `flat`, counted row by row."""
    found: dict[Any, Expr] = {}
    wide = [axis for axis, extent in axes if extent > 1]
    for axis, extent in reversed(axes):
        if extent == 1:
            found[axis] = tirx.const(0, axis.ty.dtype)
            continue
        found[axis] = flat if axis.same_as(wide[0]) else flat % extent
        flat //= extent
    return found


def _follows(stage: Stage, before: Sequence[Stage]) -> bool:
    """Whether a stage reads of those before it what they have of the same row and element."""
    for load in stage.loads:
        source = next((s for s in before if load.source.same_as(s.buffer)), None)
        if source is not None and not same(load.indices, source.indices):
            return False
    return True


def _held(stages: Sequence[Stage], places: Places) -> Iterable[Held]:
    """What stages read of inputs at each element, whatever holds there."""
    buffers = [stage.buffer for stage in stages]
    found: list[Held] = []
    for stage in stages:
        guarded = access.guarded(stage.value)
        for load in stage.loads:
            if any(load.source.same_as(buffer) for buffer in buffers):
                continue
            if any(load.same_as(each) for each in guarded) or not _by_element(load, places):
                continue
            known = alike(found, load)
            if known is None:
                found.append(Held(load.source, tuple(load.indices), frozenset({stage.name})))
            else:
                names = known.stages | {stage.name}
                found[found.index(known)] = replace(known, stages=names)
    return found


def _by_element(load: Any, places: Places) -> bool:
    """Whether a load is of another place for each element, which is known without other loads."""
    inner: list[Any] = []
    for index in load.indices:
        structural_walk(index, (TensorLoad, inner.append))
    return not inner and any(access.uses(index, places.element) for index in load.indices)


def _width(accesses: Sequence[tuple[Any, Any]], places: Places, length: int) -> int:
    """The widest vector in which all accesses to neighbours can be, 1 if there are none of them."""
    near = [(i, buffer) for i, buffer in accesses if places.step(i, buffer) == 1]
    for width in _WIDTHS:
        if near and length % width == 0 and all(places.vector(i, b, width) for i, b in near):
            return width
    return 1
