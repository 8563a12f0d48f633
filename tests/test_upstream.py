"""Every defect that docs/upstream.md tells of is still there; one that is gone can be dropped."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from upstream_defects import OTHERS, TVM, Defect, Other, outcome, page

from hybridc.compiler.frontends.onnx_graph import static_inputs

PAGE = Path(__file__).parents[1] / "docs" / "upstream.md"


@pytest.fixture(scope="module")
def cases() -> dict[str, Any]:
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {case.name: case for case in load_model_tests(kind="node")}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("defect", TVM, ids=[defect.case for defect in TVM])
def test_tvm_still_does_it(defect: Defect, cases: dict[str, Any]) -> None:
    case = cases[defect.case]
    given, expected = case.data_sets[0]
    names = [value.name for value in case.model.graph.input]
    feed = {name: np.asarray(value) for name, value in zip(names, given, strict=False)}
    deciding = static_inputs.deciding(case.model)
    model = static_inputs.fixed(case.model, {name: feed.pop(name) for name in deciding})
    assert outcome(model, feed, expected) == defect.kind


@pytest.mark.parametrize("other", OTHERS, ids=[other.check.__name__ for other in OTHERS])
def test_the_others_are_still_there(other: Other) -> None:
    if other.needs:
        pytest.importorskip(other.needs)
    assert other.check()


def test_the_page_is_made_from_the_list(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--update-golden"):
        PAGE.write_text(page())
    assert PAGE.read_text() == page()
