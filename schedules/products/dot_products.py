"""Instructions that multiply and add narrow types: what one vector register does at once.

Each adds `group` products to every 32-bit lane: bf16 pairs to fp32 (AVX512-BF16), quadruples of
u8 x s8 to int32 (VNNI; elsewhere pairs of s16 x s8).  Without its instruction bf16 is widened in
registers and multiplied in fp32: no faster than fp32, but the weights are half the bytes.

A rule marks the block of one vector's multiply-adds, and `implement` puts the instruction in its
place when all else is scheduled.  TVM's `tensorize` would do so at once, but it takes no block
under a condition, as those of a ragged last tile are.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tvm
from tvm import tirx
from tvm.s_tir import SBlock
from tvm.s_tir import Schedule as TVMSchedule
from tvm_ffi import structural_map

from hybridc.compiler.interfaces import Schedule
from hybridc.compiler.kernels.bfloat16 import lanes_of
from hybridc.compiler.target import Target
from hybridc.schedules.products import words
from hybridc.schedules.products.words import half

# Weights packed for an instruction have blocks of lanes, depth, lanes and a group at least.
AXES = 4
_MARK = "hybridc.instruction"

# TVM turns bf16 into fp32 before code generation.  Only a piece of LLVM IR can name bf16 vectors;
# it takes them as integers.
_BF16 = r"""
declare <16 x float> @llvm.x86.avx512bf16.dpbf16ps.512(<16 x float>, <32 x bfloat>, <32 x bfloat>)
define <16 x float> @hybridc_dot_bf16(<16 x float> %c, <16 x i32> %a, <16 x i32> %b) alwaysinline nounwind {
  %x = bitcast <16 x i32> %a to <32 x bfloat>
  %y = bitcast <16 x i32> %b to <32 x bfloat>
  %r = call <16 x float> @llvm.x86.avx512bf16.dpbf16ps.512(<16 x float> %c, <32 x bfloat> %x, <32 x bfloat> %y)
  ret <16 x float> %r
}
"""  # noqa: E501

# From an accumulator vector, the data of one group, and the weights of a vector of groups.
Compute = Callable[..., Any]


@dataclass(frozen=True)
class Instruction:
    """What adds `group` products to each lane; `source` is LLVM IR that its kernels bring along.

    `parts` are the registers that an operand takes when it is taken apart for the multiply-adds,
    `spare` those of products on their way to the accumulators; `unpacking` are the cycles that a
    vector of weights takes until it is an operand, `cycles` those of the multiply-add where they
    are not a multiplication's; a group of data or a vector of weights takes `loads`.
    """

    name: str
    group: int
    compute: Compute
    source: str = ""
    parts: int = 1
    spare: int = 0
    unpacking: float = 0.0
    cycles: float = 0.0
    loads: int = 1


def _vnni(lanes: int) -> Compute:
    def compute(total: Any, data: Any, weights: Any) -> Any:
        quadruple = tirx.Broadcast(tirx.reinterpret("int32", data), lanes)
        return tirx.call_llvm_pure_intrin(
            f"int32x{lanes}",
            f"llvm.x86.avx512.vpdpbusd.{32 * lanes}",
            total,
            tirx.reinterpret(f"uint8x{4 * lanes}", quadruple),
            weights,
        )

    return compute


def _multiply_add(intrinsic: str, lanes: int) -> Compute:
    """Pairs of products in 16 bits; weights that are bytes are widened as they are loaded.

    The instruction on bytes would spare the widening, but saturates its sums to 16 bits.
    """

    def compute(total: Any, data: Any, weights: Any) -> Any:
        pair = tirx.Broadcast(tirx.reinterpret("int32", data), lanes)
        wide = f"int16x{2 * lanes}"
        if str(weights.ty.dtype) != wide:
            weights = tirx.Cast(wide, weights)
        operands = tirx.reinterpret(wide, pair), weights
        return total + tirx.call_llvm_pure_intrin(f"int32x{lanes}", intrinsic, *operands)

    return compute


def _crossed(total: Any, data: Any, weights: Any) -> Any:
    """Four products for one multiplication, less what `inner_product` takes off later."""
    lanes = lanes_of(str(total.ty.dtype))
    wide = f"int16x{2 * lanes}"
    pairs = (tirx.reinterpret("int32", half(data, i)) for i in (0, 1))
    near, far = (tirx.reinterpret(wide, tirx.Broadcast(pair, lanes)) for pair in pairs)
    first, second = (tirx.Cast(wide, half(weights, i)) for i in (0, 1))
    return total + _pairs_of_products(near + second, far + first, lanes)


def _crossed_with_itself(total: Any, data: Any) -> Any:
    """Each quad's first pair times its second, in both of its lanes."""
    lanes = lanes_of(str(total.ty.dtype))
    words = tirx.reinterpret(f"int32x{lanes}", data)
    order = [tirx.const(lane ^ 1, "int32") for lane in range(lanes)]
    exchanged = tirx.reinterpret(f"int16x{2 * lanes}", tirx.Shuffle([words], order))
    return total + _pairs_of_products(data, exchanged, lanes)


def _pairs_of_products(one: Any, other: Any, lanes: int) -> Any:
    """Products of 16 bits, each pair added up in 32."""
    names = {4: "llvm.x86.sse2.pmadd.wd", 8: "llvm.x86.avx2.pmadd.wd"}
    return tirx.call_llvm_pure_intrin(f"int32x{lanes}", names[lanes], one, other)


def _bf16(total: Any, data: Any, weights: Any) -> Any:
    pair = tirx.Broadcast(tirx.reinterpret("int32", data), 16)
    integers = tirx.reinterpret("int32x16", weights)
    return tirx.call_extern("float32x16", "hybridc_dot_bf16", total, pair, integers)


def _widened_weights(total: Any, data: Any, weights: Any) -> Any:
    """Pairs of weights of bfloat16, the upper halves of fp32, and activations of fp32."""
    lanes = lanes_of(str(total.ty.dtype))
    kind, pairs = f"float32x{lanes}", tirx.reinterpret(f"int32x{lanes}", weights)
    even = tirx.reinterpret(kind, pairs << tirx.Broadcast(tirx.const(16, "int32"), lanes))
    odd = tirx.reinterpret(kind, pairs & tirx.Broadcast(tirx.const(-0x10000, "int32"), lanes))
    *lead, ramp = data.indices
    first, second = (
        tirx.Broadcast(tirx.BufferLoad(data.source, [*lead, ramp.base + i]), lanes) for i in (0, 1)
    )
    return (total + first * even) + second * odd


_INSTRUCTIONS = {
    # Types of data and weights, and the instruction set; the first that the target has is taken.
    ("uint8", "int8", "avx512vnni"): Instruction("vpdpbusd-512", 4, _vnni(16)),
    ("uint8", "int8", "avxvnni"): Instruction("vpdpbusd-256", 4, _vnni(8)),
    ("int16", "int8", "avx512bw"): Instruction(
        "vpmaddwd-512", 2, _multiply_add("llvm.x86.avx512.pmaddw.d.512", 16), unpacking=0.5
    ),
    ("int16", "int8", "avx2"): Instruction(
        "vpmaddwd-256",
        2,
        _multiply_add("llvm.x86.avx2.pmadd.wd", 8),
        spare=1,
        unpacking=0.1,
        cycles=0.65,
    ),
    ("int16", "int16", "avx512bw"): Instruction(
        "vpmaddwd-512-words", 2, _multiply_add("llvm.x86.avx512.pmaddw.d.512", 16)
    ),
    ("int16", "int16", "avx2"): Instruction(
        "vpmaddwd-256-words",
        2,
        _multiply_add("llvm.x86.avx2.pmadd.wd", 8),
        spare=1,
        cycles=0.65,
    ),
    ("bfloat16", "bfloat16", "avx512bf16"): Instruction("vdpbf16ps", 2, _bf16, _BF16),
    ("float32", "bfloat16", ""): Instruction(
        "widened-weights", 2, _widened_weights, parts=2, unpacking=1.0, cycles=1.0, loads=2
    ),
}
# For words of weights in groups, by the inputs of a word and the instruction set; the first that
# the target has is taken.
_OF_WORDS = {
    (4, "avx512vnni"): Instruction("words-of-bytes-512", 4, words.of_bytes(16)),
    (8, "avx512vnni"): Instruction("words-of-halves-512", 8, words.of_halves(16)),
    (8, "avx512bw"): Instruction("words-of-halves-512-pairs", 8, words.of_halves_in_pairs(16)),
    (4, "avxvnni"): Instruction("words-of-bytes-256", 4, words.of_bytes(8)),
    (8, "avxvnni"): Instruction("words-of-halves-256", 8, words.of_halves(8)),
    (8, "avx2"): Instruction("words-of-halves-256-pairs", 8, words.of_halves_in_pairs(8)),
}
# For the blocks of `inner_product`.
CROSSED = Instruction(
    "crossed-256", 2, _crossed, parts=2, spare=2, unpacking=0.2, cycles=1.15, loads=2
)
CROSSED_WITH_ITSELF = Instruction("crossed-with-itself", 2, _crossed_with_itself)
_BY_NAME = {
    instruction.name: instruction
    for instruction in (
        *_INSTRUCTIONS.values(),
        *_OF_WORDS.values(),
        CROSSED,
        CROSSED_WITH_ITSELF,
    )
}


def instruction_for(data: str, weight: str, target: Target) -> Instruction | None:
    """The target's instruction for products of these types, or None if it has none."""
    for (x, w, feature), instruction in _INSTRUCTIONS.items():
        if (data, weight) == (x, w) and (not feature or feature in target.features):
            return instruction
    return None


def of_words(share: int, target: Target) -> Instruction | None:
    """The target's instruction for words that hold so many weights, or None if it has none."""
    return next(
        (
            instruction
            for (inputs, feature), instruction in _OF_WORDS.items()
            if inputs == share and feature in target.features
        ),
        None,
    )


def block_of(schedule: Schedule, product: Any, lanes: int, instruction: Instruction) -> Any:
    """Make a block of a product's lanes and groups: what the instruction is to compute.

    This comes before tiling: the conditions of ragged tiles then stand around whole vectors.
    """
    loops = schedule.get_loops(product)
    kinds = [int(axis.iter_type) for axis in schedule.get(product).iter_vars]
    reduced = kinds.count(tirx.IterVar.CommReduce)
    *outer, column = loops[:-reduced]
    *depth, last = loops[-reduced:]
    part, lane = schedule.split(column, [None, lanes])
    step, element = schedule.split(last, [None, instruction.group])
    schedule.reorder(*outer, part, *depth, step, lane, element)
    return schedule.blockize(lane)


def mark(schedule: Schedule, block: Any, instruction: Instruction) -> None:
    """Mark a block, whose reduction is decomposed, and import the instruction's LLVM IR."""
    schedule.annotate(block, _MARK, instruction.name)
    if instruction.source:
        outermost = schedule.get_loops(block)[0]
        schedule.annotate(outermost, "pragma_import_llvm", instruction.source)


def implement(schedule: Schedule) -> Schedule:
    """Put the instructions where blocks are marked; a schedule without marks stays as it is."""
    func = schedule.mod["main"]
    body = structural_map(func.body, (SBlock, _implemented))
    if body.same_as(func.body):
        return schedule
    return TVMSchedule(tvm.IRModule({"main": func.with_body(body)}), error_render_level="fast")


def _implemented(block: Any) -> Any:
    name = block.annotations.get(_MARK)
    if name is None:
        return block
    total, *operands = (_vector(region) for region in block.reads)
    value = _BY_NAME[str(name)].compute(total, *operands)
    annotations = {key: kept for key, kept in block.annotations.items() if key != _MARK}
    return SBlock(
        block.iter_vars,
        block.reads,
        block.writes,
        block.name_hint,
        tirx.BufferStore(total.source, value, total.indices),
        annotations=annotations,
    )


def _vector(region: Any) -> Any:
    """All of a region, whose last axes lie without gaps, as one vector."""
    starts = [axis.min for axis in region.region]
    size, inner = 1, len(starts)
    while inner and (extent := int(region.region[inner - 1].extent)) > 1:
        size, inner = size * extent, inner - 1
    return tirx.BufferLoad(region.source, [*starts[:-1], tirx.Ramp(starts[-1], 1, size)])
