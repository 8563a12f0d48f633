"""The innermost loops over windows of bytes, in the order in which they are fastest.

LLVM would load the activations of several rows at once, for which accumulators lose their
registers; so the loops come as text.  See `kernels.byte_windows` for what they compute.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256

from hybridc.compiler.kernels.products.byte_packing import VECTORS

# Accumulators have the first registers; then come weights, a window, two sums, ones.
MOST_ROWS = 8
_WEIGHTS, _DATA, _SUMS, _ONES = 8, 12, (13, 14), 15
_VECTOR = 32
# The operands of the text, in their order.  The first ones change, and are results.
_TABLE, _ORDER, _AHEAD, _LEFT, _START, _HERE = (f"${n}" for n in range(6))
_ROWS, _SUM, _FOURS, _STARTS, _LAST = (f"${n}" for n in range(6, 11))
_RESULTS = "{ ptr, ptr, ptr, i64, i64, ptr }"
_CONSTRAINTS = "=&r,=&r,=&r,=&r,=&r,=&r,r,r,r,r,r,0,1,2"
_LINE = 64


@dataclass(frozen=True)
class Loops:
    """The loops for so many rows, which lie `stride` bytes apart, and so many windows of a panel.

    Windows begin at `starts` within what a row reads.  Accumulators of successive rows lie `pitch`
    bytes apart.  Of the weights that come next, `lines` are asked for in each window.
    """

    rows: int
    stride: int
    windows: int
    pitch: int
    starts: tuple[int, ...]
    lines: int = 0

    @property
    def name(self) -> str:
        """The function's name: another one for other loops."""
        return f"hybridc_byte_windows_{sha256(repr(self).encode()).hexdigest()[:32]}"

    @property
    def source(self) -> str:
        """LLVM IR of a function of accumulators, rows, table, order, and lines to ask for."""
        text = "\\0A".join(self._lines())
        clobbered = [*(f"ymm{n}" for n in range(16)), "memory", "flags", "dirflag", "fpsr"]
        constraints = ",".join([_CONSTRAINTS, *(f"~{{{clobber}}}" for clobber in clobbered)])
        count = len(self.starts)
        starts = ", ".join(f"i32 {start}" for start in self.starts)
        return f"""
@{self.name}_starts = private constant [{count} x i32] [{starts}], align 4
define void @{self.name}(ptr %acc, ptr %x, ptr %w, ptr %order, ptr %ahead) noinline nounwind {{
  %fours = load i16, ptr %order, align 2
  %count = zext i16 %fours to i64
  %few = icmp ult i64 %count, {self.windows}
  %n = select i1 %few, i64 %count, i64 {self.windows}
  %first = getelementptr i16, ptr %order, i64 1
  %r = call {_RESULTS} asm sideeffect "{text}", "{constraints}"(ptr %x, ptr %acc, i64 %n, ptr @{self.name}_starts, i64 {count - 1}, ptr %w, ptr %first, ptr %ahead)
  ret void
}}
"""  # noqa: E501

    def _lines(self) -> Iterator[str]:
        yield from (f"vpxor %ymm{r}, %ymm{r}, %ymm{r}" for r in range(self.rows))
        yield f"vpcmpeqw %ymm{_ONES}, %ymm{_ONES}, %ymm{_ONES}"
        yield f"vpsrlw $$15, %ymm{_ONES}, %ymm{_ONES}"
        yield from _start()
        yield f"movq {_FOURS}, {_LEFT}"
        yield from self._loop(4, f"test {_LEFT}, {_LEFT}")
        yield f"movq $${self.windows}, {_LEFT}"
        yield from self._loop(2, f"sub {_FOURS}, {_LEFT}")
        yield from (f"vmovdqu %ymm{r}, {r * self.pitch}({_SUM})" for r in range(self.rows))

    def _loop(self, size: int, counted: str) -> Iterator[str]:
        """The windows whose sums have a size; `counted` tells whether there are any."""
        yield counted
        yield f"jle {size + 1}f"
        yield ".p2align 5"
        yield f"{size}:"
        yield f"lea ({_ROWS},{_START}), {_HERE}"
        yield from _start()
        yield from (f"prefetcht1 {i * _LINE}({_AHEAD})" for i in range(self.lines))
        for i in range(VECTORS):
            yield f"vmovdqu {(VECTORS + i) * _VECTOR}({_TABLE}), %ymm{_WEIGHTS + i}"
        for r in range(self.rows):
            yield f"vbroadcasti128 {r * self.stride}({_HERE}), %ymm{_DATA}"
            yield from _row(r, size // 2)
        yield f"add $${2 * VECTORS * _VECTOR}, {_TABLE}"
        yield f"add $${self.lines * _LINE}, {_AHEAD}"
        yield f"dec {_LEFT}"
        yield f"jnz {size}b"
        yield f"{size + 1}:"


def _start() -> Iterator[str]:
    """Where the next window begins: found one window ahead, or its loads would wait for it."""
    yield f"movzwl ({_ORDER}), ${{{_START[1:]}:k}}"
    yield f"add $$2, {_ORDER}"
    yield f"cmp {_LAST}, {_START}"
    yield f"cmova {_LAST}, {_START}"
    yield f"movslq ({_STARTS},{_START},4), {_START}"


def _row(row: int, group: int) -> Iterator[str]:
    """A window of one row: sums of a group of vectors in 16 bits, then in the accumulator."""
    for i in range(VECTORS):
        first = i % group == 0
        total = _SUMS[i % 2 if group == 1 else 0]
        to = total if first else _SUMS[1]
        yield f"vpshufb {i * _VECTOR}({_TABLE}), %ymm{_DATA}, %ymm{to}"
        yield f"vpmaddubsw %ymm{_WEIGHTS + i}, %ymm{to}, %ymm{to}"
        if not first:
            yield f"vpaddw %ymm{to}, %ymm{total}, %ymm{total}"
        if i % group == group - 1:
            yield f"vpmaddwd %ymm{_ONES}, %ymm{total}, %ymm{total}"
            yield f"vpaddd %ymm{total}, %ymm{row}, %ymm{row}"
