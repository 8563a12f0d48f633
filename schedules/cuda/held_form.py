"""A kernel of row stages in terms of row and element, for rows that lie in registers.

What a stage reads and writes is told by two variables: which row, and which element of it.  What
two stages read alike is then the same expression.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tvm import sym, tirx
from tvm.ir.expr import TensorLoad
from tvm.ir.prim import expr as prim
from tvm_ffi import structural_equal, structural_walk

from hybridc.compiler.interfaces import PrimFunc
from hybridc.schedules.cuda.product_kernel import substituted
from hybridc.schedules.loops import access

WIDEST = 16  # bytes of one access of a thread
SIZES: Mapping[str, int] = {
    **{"float32": 4, "int32": 4, "float16": 2, "bfloat16": 2},
    **{"int8": 1, "uint8": 1},
}
Expr = Any


@dataclass(frozen=True)
class Places:
    """The variables of a form: which row, and which of its elements."""

    row: Any
    element: Any

    def at(self, value: Expr, row: Expr, element: Expr) -> Expr:
        """An expression at an element of a row."""
        dtype = str(self.row.ty.dtype)
        places = {self.row: row.astype(dtype), self.element: element.astype(dtype)}
        return substituted(value, places)

    def step(self, indices: Sequence[Expr], buffer: Any) -> int | None:
        """How far apart two neighbouring elements lie; None where that varies."""
        found = sym.detect_linear_equation(self._flat(indices, buffer), [self.element])
        known = bool(found) and isinstance(found[0], prim.IntImm)
        return int(found[0]) if known else None

    def vector(self, indices: Sequence[Expr], buffer: Any, width: int) -> bool:
        """Whether `width` neighbours lie side by side, and the first at a multiple of that."""
        if width * SIZES.get(str(buffer.dtype), WIDEST + 1) > WIDEST:
            return False
        if self.step(indices, buffer) != 1:
            return False
        whole = tirx.Var("whole", self.element.ty)
        flat = substituted(self._flat(indices, buffer), {self.element: whole * width})
        found = sym.Analyzer().modular_set(access.simplify(flat))
        return int(found.coeff) % width == 0 and int(found.base) % width == 0

    @staticmethod
    def _flat(indices: Sequence[Expr], buffer: Any) -> Expr:
        return access.simplify(access.distance(indices, buffer))


@dataclass(frozen=True, eq=False)
class Held:
    """What `stages` read of an input at each element; `vector` where neighbours lie together."""

    source: Any
    indices: tuple[Expr, ...]
    stages: frozenset[str]
    vector: bool = False

    @property
    def dtype(self) -> str:
        """The type of the input."""
        return str(self.source.dtype)


@dataclass(frozen=True, eq=False)
class Stage:
    """A stage's store in terms of row and element.

    A reduction's `value` is what it combines, from `start` on, by `kind`, which is None of what is
    no reduction.  `inner` says that there is a value for each element; `vector` as of `Held`.
    """

    name: str
    buffer: Any
    indices: tuple[Expr, ...]
    value: Expr
    inner: bool
    kind: Any = None
    start: Expr = None
    vector: bool = False

    @property
    def reduces(self) -> bool:
        """Whether there is one value for a row."""
        return self.kind is not None

    @property
    def dtype(self) -> str:
        """The type of the values."""
        return str(self.buffer.dtype)

    @property
    def loads(self) -> list[Any]:
        """What it reads."""
        found: list[Any] = []
        structural_walk(self.value, (TensorLoad, found.append))
        return found


@dataclass(frozen=True, eq=False)
class Form:
    """A kernel of `rows` rows of `length` elements, which threads have in vectors of `width`."""

    func: PrimFunc
    places: Places
    rows: int
    length: int
    width: int
    stages: tuple[Stage, ...]
    output: Stage
    held: tuple[Held, ...]

    def turns(self, threads: int) -> int:
        """Vectors of a thread where so many have a row."""
        return -(-self.length // (threads * self.width))

    def late(self, held: Held) -> bool:
        """Whether the output alone reads it."""
        return held.stages == frozenset({self.output.name})

    def registers(self, threads: int, ahead: bool = False) -> int:
        """Registers for what a thread keeps from stage to stage, at most at once.

        What the output alone reads is kept too where it is read `ahead`.
        """
        order = [*(stage.name for stage in self.stages), self.output.name]
        spans = [(SIZES[x.dtype], -1, max(map(order.index, x.stages))) for x in self.held]
        if not ahead:
            spans = [s for s, x in zip(spans, self.held, strict=True) if not self.late(x)]
        for place, stage in enumerate(self.stages):
            if not stage.reduces:
                spans.append((SIZES[stage.dtype], place, self._last_read(stage)))
        live = (
            sum(size for size, begin, end in spans if begin <= after < end)
            for after in range(-1, len(self.stages))
        )
        return self.turns(threads) * self.width * max(live) // 4

    def _last_read(self, stage: Stage) -> int:
        readers = (*self.stages, self.output)
        return max(
            (
                i
                for i, each in enumerate(readers)
                for x in each.loads
                if x.source.same_as(stage.buffer)
            ),
            default=0,
        )

    def found(self, load: Any) -> Held | Stage | None:
        """Where in registers a stage finds what it reads."""
        stage = next((s for s in self.stages if load.source.same_as(s.buffer)), None)
        return stage or alike(self.held, load)


def alike(held: Sequence[Held], load: Any) -> Held | None:
    """What is read at the place of a load, among these."""
    return next(
        (x for x in held if x.source.same_as(load.source) and same(x.indices, load.indices)), None
    )


def same(one: Sequence[Expr], other: Sequence[Expr]) -> bool:
    """Whether two accesses are at the same place."""
    return len(one) == len(other) and all(
        structural_equal(a, b) for a, b in zip(one, other, strict=True)
    )
