"""What a kernel of attention computes: its operands, mask and precision."""

import json
from dataclasses import asdict, dataclass
from typing import Any

from tvm.s_tir import SBlock
from tvm_ffi import structural_walk

from hybridc.compiler.interfaces import PrimFunc
from hybridc.compiler.kernels.tensor_expressions import KERNEL

# The attribute of a loop nest that holds its form.
_FORM = "hybridc.attention"
_HEAD = 1  # the logical axis of heads
# Lanes of the vectors of which there are but 16 registers, and rows that share a vector of keys.
_FEW_LANES, _MANY_ROWS = 8, 8


@dataclass(frozen=True)
class Operand:
    """A tensor of rank 4 and the order of its axes: `axes[i]` holds logical axis i.

    Of the heads that the tensor holds, `heads` from `first` on are meant, all by default.  The
    logical axes are batch, head, position, feature for queries and values, and batch, head,
    feature, position for keys.
    """

    shape: tuple[int, ...]
    axes: tuple[int, ...]
    first: int = 0
    heads: int = 0

    def extent(self, axis: int) -> int:
        """Extent of a logical axis."""
        return self.heads if self.heads and axis == _HEAD else self.shape[self.axes[axis]]

    def at(self, source: Any, *index: Any) -> Any:
        """The element of `source` at a logical index."""
        physical: list[Any] = [None] * len(index)
        for logical, (axis, i) in enumerate(zip(self.axes, index, strict=True)):
            physical[axis] = i + self.first if logical == _HEAD and self.first else i
        return source[tuple(physical)]


@dataclass(frozen=True)
class Fill:
    """What a mask of booleans fills in: `value`, where the mask is `where`."""

    value: float
    where: bool


@dataclass(frozen=True)
class Attention:
    """`softmax(scale * q k + mask) v`; `mask` is the shape of the mask, or None.

    The mask is added or, where there is a `fill`, of booleans that choose what to fill in.
    Several query heads may share one head of keys and values.  Rows whose weights are no numbers
    give zeros if `safe`, as PyTorch's attention does for rows that are masked wholly.  Where
    `causal` is set, row i meets the columns up to i + `causal` and no others.  Operands are of
    `dtype`, as the products' are; sums and the softmax are in float32.
    """

    query: Operand
    key: Operand
    value: Operand
    scale: float
    mask: tuple[int, ...] | None
    safe: bool
    fill: Fill | None = None
    causal: int | None = None
    dtype: str = "float32"

    @property
    def shared(self) -> int:
        """Query heads that share one head of keys and values."""
        return self.query.extent(1) // self.key.extent(1)

    def scores_shape(self, lanes: int) -> tuple[int, ...]:
        """Batch, heads, rows, and columns rounded up to whole vectors."""
        batch, heads, rows = (self.query.extent(axis) for axis in range(3))
        return batch, heads, rows, self.whole_columns(lanes)

    def whole_columns(self, lanes: int) -> int:
        """Columns rounded up to whole vectors, and to pairs of them where those are faster.

        Of 16 registers, tiles of one vector by 4 rows keep but half of the multiply-adds busy: 25
        vectors of columns, as 197 patches make, take longer than 26.
        """
        vectors = -(-self.key.extent(3) // lanes)
        along = self.key.axes[2] == len(self.key.shape) - 1 and self.dtype == "float32"
        odd = vectors % 2 and vectors > 1
        paired = odd and along and lanes <= _FEW_LANES and self.query.extent(2) >= _MANY_ROWS
        return (vectors + paired) * lanes

    @property
    def batch(self) -> Any:
        """Extent of the leading axis, which alone may be open."""
        return self.query.extent(0)

    @property
    def flops(self) -> int:
        """What the two products take, a multiply-add counted as two; no causally masked."""
        heads, rows, depth = (self.query.extent(axis) for axis in range(1, 4))
        met = sum(self.columns_of(row) for row in range(rows))
        images = self.batch if isinstance(self.batch, int) else 1
        return 2 * images * heads * met * (depth + self.value.extent(3))

    def columns_of(self, row: int) -> int:
        """How many columns a row meets."""
        columns = self.key.extent(3)
        return columns if self.causal is None else min(columns, row + self.causal + 1)


def with_form(func: PrimFunc, form: Attention) -> PrimFunc:
    """The loop nest with a note of what it computes."""
    return func.with_attr(_FORM, json.dumps(_plain(asdict(form))))


def _plain(value: Any) -> Any:
    """JSON data; an open size is 1, as in the strip that a rule is given."""
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value if value is None or isinstance(value, bool | int | float | str) else 1


def is_attention(func: PrimFunc) -> bool:
    """Whether a loop nest has a note of its form."""
    return func.attrs is not None and _FORM in func.attrs


def holds_attention(func: PrimFunc) -> bool:
    """Whether a loop nest computes attention, with whatever has been fused to it since."""
    kinds: list[str] = []
    structural_walk(
        func.body, (SBlock, lambda block: kinds.append(str(block.annotations.get(KERNEL, ""))))
    )
    return "attention" in kinds


def form_of(func: PrimFunc) -> Attention | None:
    """What a loop nest computes, where it is noted there."""
    if func.attrs is None or _FORM not in func.attrs:
        return None
    data: dict[str, Any] = json.loads(str(func.attrs[_FORM]))
    for name in ("query", "key", "value"):
        shape, axes = (tuple(data[name].pop(part)) for part in ("shape", "axes"))
        data[name] = Operand(shape, axes, **data[name])
    data["mask"] = None if data["mask"] is None else tuple(data["mask"])
    data["fill"] = None if data["fill"] is None else Fill(**data["fill"])
    return Attention(**data)
