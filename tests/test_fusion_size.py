"""A long chain of elementwise operators becomes kernels of a bounded size."""

import numpy as np
from tvm import relax

from hybridc.compiler import pipeline, target
from hybridc.compiler.evaluate import evaluate
from hybridc.compiler.interfaces import Context

LENGTH, MOST = 120, 48


def test_a_long_chain_is_cut() -> None:
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((5,), "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            value = x
            for _ in range(LENGTH // 2):
                value = builder.emit(relax.op.multiply(value, relax.const(0.5, "float32")))
                value = builder.emit(relax.op.add(value, x))
            result = builder.emit_output(value)
        builder.emit_func_output(result)
    steps = pipeline.parse("legalize,fuse")
    module = pipeline.run(steps, builder.finalize(), Context(target.parse("cpu", threads=1)))
    sizes = [
        func.script().count("with T.sblock(") - 1
        for _, func in module.functions_items()
        if not isinstance(func, relax.Function)
    ]
    assert len(sizes) > 1
    assert sum(sizes) == LENGTH
    assert max(sizes) <= MOST
    given = np.arange(5, dtype=np.float32)
    np.testing.assert_allclose(evaluate(module, [given])[0], given * 2, rtol=1e-5)
