"""The node tests of the onnx wheel: an operator each, in most cases, with all its options."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from hybridc.compiler.conformance import onnx_cases
from hybridc.compiler.conformance.comparison import Tolerance
from hybridc.compiler.conformance.suite import Entry, Result, Suite

_EXPANDED = "_expanded"


@dataclass(frozen=True)
class OnnxNode(Suite):
    """ONNX's node tests.

    The core leaves out functions written out (`_expanded`), other domains than ai.onnx, and
    tensors of other types than float16 to 64, integers of 8 to 64 bits, and bool.  The engine may
    be `ort`, ONNX Runtime, to compare with; without `fallback`, ours gets no help of it.
    """

    engine: str = "hybridc"
    fallback: bool = True

    packages = ("onnx",)
    warm_up = ("test_matmul_2d", "test_softmax_example")

    @cached_property
    def _cases(self) -> dict[str, Any]:
        from onnx.backend.test.loader import load_model_tests

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tests of infinity warn as they are made
            return {case.name: case for case in load_model_tests(kind="node")}

    def entries(self, core: bool) -> Sequence[Entry]:
        """The tests by name, each counted under its last operator."""
        return [
            Entry(name, case.model.graph.node[-1].op_type)
            for name, case in sorted(self._cases.items())
            if not core or (_EXPANDED not in name and onnx_cases.is_core(case.model))
        ]

    def examine(self, name: str) -> Result:
        """Run one test."""
        case = self._cases[name]
        tolerance = Tolerance(case.rtol, case.atol)
        data = onnx_cases.Case(case.model, case.data_sets, tolerance)
        return onnx_cases.examine(data, self.engine, self.fallback)
