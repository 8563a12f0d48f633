"""The node tests of the onnx wheel: an operator each, in most cases, with all its options."""

import importlib
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hybridc.compiler.conformance import onnx_cases
from hybridc.compiler.conformance.comparison import Tolerance
from hybridc.compiler.conformance.suite import Entry, Result, Suite

# Functions written out are tests of their own, called so behind the name, or `_expanded_ver18`.
_EXPANDED = "_expanded"
_OPSETS = 100
_TEST = re.compile(r"\bexpect\(")
_NAME = re.compile(r'\bname="(test_\w+)"\s*[,)]')


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

    def entries(self, core: bool) -> Sequence[Entry]:
        """The tests by name, each counted under its last operator."""
        return self.named(core, "")

    def named(self, core: bool, text: str) -> Sequence[Entry]:
        """The tests whose names contain a text, without making all the others first."""
        return [
            Entry(name, case.model.graph.node[-1].op_type)
            for name, case in sorted(_made(text).items())
            if text in name
            and (not core or (_EXPANDED not in name and onnx_cases.is_core(case.model)))
        ]

    def examine(self, name: str) -> Result:
        """Run one test."""
        case = _known().get(name) or _made(name)[name]
        tolerance = Tolerance(case.rtol, case.atol)
        data = onnx_cases.Case(case.model, case.data_sets, tolerance)
        return onnx_cases.examine(data, self.engine, self.fallback)


def _made(text: str) -> Mapping[str, Any]:
    """ONNX's tests that there are by now, among them all whose names contain a text.

    A module makes its tests as it is imported, and some compute outputs in loops of Python, which
    takes seconds: what cannot be wanted stays out.
    """
    from onnx.backend.test.case import node

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tests of infinity warn as they are made
        for folder in map(Path, node.__path__):
            for path in sorted(folder.rglob("[!_]*.py")):
                if may_make(path.read_text(), text):
                    module = path.relative_to(folder).with_suffix("").parts
                    importlib.import_module(".".join((node.__name__, *module)))
    return _known()


def _known() -> Mapping[str, Any]:
    from onnx.backend.test.case.node import _NodeTestCases

    return {case.name: case for case in _NodeTestCases}


def may_make(source: str, text: str) -> bool:
    """Whether a module of tests may make one whose name contains a text, as far as it can be read.

    A name that the module computes may be any.
    """
    names = _NAME.findall(source)
    if len(names) != len(_TEST.findall(source)):
        return True
    return any(text in f"{name}{_EXPANDED}_ver{n}" for name in names for n in range(_OPSETS))
