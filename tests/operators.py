"""Runs one Relax operator through the passes that make it fast, for tests of kernels and rules."""

from collections.abc import Callable
from typing import Any

from tvm import relax

from hybridc.compiler import pipeline, target
from hybridc.compiler.interfaces import Context
from hybridc.compiler.ir.evaluate import evaluate
from hybridc.compiler.model import Array

_STEPS = (
    "legalize,fuse,schedule,start-at-infinity,lower-bfloat16,fast-math,propagate-nan,shield-floats"
)


def compiled(
    build: Callable[..., Any], *inputs: Array, cpu: str = "cpu"
) -> tuple[list[Array], set[str]]:
    """The results of an operator, and the rules that took its kernels."""
    builder = relax.BlockBuilder()
    variables = [
        relax.Var(f"x{i}", relax.TensorType(x.shape, str(x.dtype))) for i, x in enumerate(inputs)
    ]
    with builder.function("main", variables):
        with builder.dataflow():
            y = builder.emit_output(builder.normalize(build(*variables)))
        builder.emit_func_output(y)
    context = Context(target.parse(cpu, threads=2), pipeline.rules())
    module = pipeline.run(pipeline.parse(_STEPS), builder.finalize(), context)
    assert not context.notes, context.notes
    return evaluate(module, list(inputs)), {kernel.rule for kernel in context.kernels}
