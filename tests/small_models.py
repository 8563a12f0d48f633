"""Small modules built by TVM's own default lowering, as artifacts, for the tests of sessions."""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tvm
from numpy.typing import NDArray
from tvm import relax

from hybridc.compiler.artifacts.artifact import Artifact
from hybridc.compiler.model import Array, TensorSpec

RNG = np.random.default_rng(3)
W: NDArray[np.float32] = RNG.standard_normal((8, 16)).astype(np.float32)
B: NDArray[np.float32] = RNG.standard_normal(16).astype(np.float32)
X: NDArray[np.float32] = RNG.standard_normal((4, 8)).astype(np.float32)

Body = Callable[[list[Any], Any], list[Any]]


def compiled(
    inputs: list[TensorSpec], outputs: list[TensorSpec], weights: Mapping[str, Array], body: Body
) -> Artifact:
    """Build `body(inputs, weights)`, which gives the outputs, as an artifact."""
    builder = relax.BlockBuilder()
    given = [relax.Var(f"x{i}", _type(spec.shape, spec.dtype)) for i, spec in enumerate(inputs)]  # pyright: ignore[reportArgumentType]
    types = [_type(array.shape, str(array.dtype)) for array in weights.values()]
    held = relax.Var("weights", relax.TupleType(types))
    with builder.function("main", [*given, held]):
        with builder.dataflow():
            found = [builder.emit_output(value) for value in body(given, held)]
        builder.emit_func_output(found[0] if len(found) == 1 else found)
    executable = tvm.compile(builder.get(), target=tvm.target.Target("llvm"))
    with tempfile.TemporaryDirectory() as folder:
        executable.export_library(f"{folder}/lib.so")
        library = Path(folder, "lib.so").read_bytes()
    return Artifact("model", tuple(inputs), tuple(outputs), {}, "default", library, weights)


def _type(shape: tuple[int, ...], dtype: str) -> Any:
    return relax.TensorType(shape, dtype)


def dense_artifact() -> Artifact:
    """`y = x @ w + b`, and `z = y + y`."""

    def body(given: list[Any], weights: Any) -> list[Any]:
        product = relax.op.matmul(given[0], relax.TupleGetItem(weights, 0))
        y = relax.op.add(product, relax.TupleGetItem(weights, 1))
        return [y, relax.op.add(y, y)]

    inputs = [TensorSpec("x", (4, 8), "float32")]
    outputs = [TensorSpec("y", (4, 16), "float32"), TensorSpec("z", (4, 16), "float32")]
    return compiled(inputs, outputs, {"w": W, "b": B}, body)
