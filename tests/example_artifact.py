"""An artifact with one of everything, for the tests of its file."""

import dataclasses
from typing import Any

import ml_dtypes
import numpy as np
from hypothesis import strategies as st

from hybridc.compiler.artifacts.artifact import Artifact
from hybridc.compiler.model import Array, TensorSpec

WEIGHTS: dict[str, Array] = {
    "w1": np.arange(15, dtype=np.float32).reshape(3, 5),
    "scalar": np.array(7, np.int64),
    "empty": np.zeros((0, 3), np.float16),
    "a_half": np.arange(7).astype(ml_dtypes.bfloat16),
    "mask": np.array([True, False, True]),
    "q": np.arange(-64, 64, dtype=np.int8).reshape(2, 64),
}

# Any JSON at all, to stand where something definite is wanted.
JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=5)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


def make(**changes: Any) -> Artifact:
    artifact = Artifact(
        name="digits",
        inputs=(TensorSpec("x", (1, 8, 8), "float32"), TensorSpec("n", (), "int64")),
        outputs=(TensorSpec("y", (1, 10), "bfloat16"),),
        target={"kind": "cpu", "cpu": "x86-64-v3", "features": ["avx2", "fma"], "threads": 2},
        pipeline="fold-constants,fuse{depth=4}",
        library=b"\x7fELF" + bytes(range(256)),
        weights=WEIGHTS,
        lock={"dense_0": {"rule": "dense", "point": {"rows": 8, "columns": 32}}},
        report={"kernels": 1, "passes": ["fuse"]},
        certificate={"max_abs": 1e-6},
    )
    return dataclasses.replace(artifact, **changes)
