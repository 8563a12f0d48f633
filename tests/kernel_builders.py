"""Makes kernels for the corpus: TIR functions as they reach the schedule rules.

`operator` makes them from Relax operators with the passes that run before scheduling.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from tvm import relax, tirx

from hybridc.compiler import pipeline
from hybridc.compiler.interfaces import Context, PrimFunc
from hybridc.compiler.target import Target

Builder = Callable[[Target], list[PrimFunc]]
Operand = tuple[Sequence[int], str]
op: Any = relax.op

LOWERED = "legalize,fuse"
FAST = f"{LOWERED},fast-math"
# Activations of bfloat16 on any CPU; weights too, where that is faster.
NARROW = "layout,fold-constants,mixed-precision{in-kernel=true}"
MIXED = f"{NARROW},pack-weights,{LOWERED}"
# Weights of bfloat16 that kernels widen.
IN_KERNEL = f"{NARROW},pack-weights{{in-kernel=true}},{LOWERED}"
QUANTIZED = f"integer-arithmetic,layout,fold-constants,pack-weights,{LOWERED}"
PLANES = f"depthwise-planes,{LOWERED}"
PACKED = f"layout,fold-constants,pack-weights,{LOWERED}"


def floats(*shapes: Sequence[int]) -> list[Operand]:
    """Operands of float32."""
    return [(shape, "float32") for shape in shapes]


def bf16(*shapes: Sequence[int]) -> list[Operand]:
    """Operands of bfloat16."""
    return [(shape, "bfloat16") for shape in shapes]


def bytes_of(*shapes: Sequence[int]) -> list[Operand]:
    """Operands of uint8."""
    return [(shape, "uint8") for shape in shapes]


def operator(build: Callable[..., Any], *operands: Operand, passes: str = LOWERED) -> Builder:
    """The kernels of a Relax expression over operands of these shapes and types."""

    def kernels(cpu: Target) -> list[PrimFunc]:
        builder = relax.BlockBuilder()
        inputs = [
            relax.Var(f"x{i}", relax.TensorType(shape, dtype))
            for i, (shape, dtype) in enumerate(operands)
        ]
        with builder.function("main", inputs):
            with builder.dataflow():
                result = builder.emit_output(builder.normalize(build(*inputs)))
            builder.emit_func_output(result)
        module = pipeline.run(pipeline.parse(passes), builder.finalize(), Context(cpu))
        found = [func for _, func in module.functions_items()]
        return [func for func in found if isinstance(func, tirx.PrimFunc)]

    return kernels


def constant(*shape: int) -> Any:
    """Weights, for the kernels that want them constant."""
    values = np.random.default_rng(0).standard_normal(shape).astype("float32")
    return relax.const(values)
