"""Narrowing: what is not tried, and when it ends."""

import numpy as np
import pytest
from test_narrowing import Candidate, Compiler, lowered, narrowed

from hybridc.compiler.assurance.confidence import Estimate
from hybridc.compiler.assurance.contract import Measured
from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.orchestration.time_budget import OutOfTimeError
from hybridc.compiler.quantization import narrowing, sensitivity


def test_more_than_what_was_too_much_is_not_tried() -> None:
    """What seems the least sensitive is to blame: with it nothing keeps the limit."""

    class Misleading(Compiler):
        def __call__(self, options: Options) -> Candidate:
            self.tried.append(options.precise)
            cosine = Estimate.exactly(1.0 if "conv2d-0" in options.precise else 0.9)
            return Candidate(Measured(accuracy={"cosine": cosine}), lowered(self.errors))

    compiler = Misleading([1e-3, 2e-3, 3e-3, 4e-3])
    found = narrowed(compiler, 0.999)
    assert found is not None
    assert found.options.precise == ("conv2d-0", "conv2d-2", "conv2d-3")
    _, *tried = ({f"conv2d-{i}" for i in range(4)} - set(kept) for kept in compiler.tried)
    assert not any(less < more for i, less in enumerate(tried) for more in tried[i + 1 :])
    assert len(tried) <= narrowing.STEPS


def test_sensitivity_is_measured_as_long_as_there_is_time() -> None:
    def over() -> None:
        raise OutOfTimeError("the budget ends before sensitivity is measured")

    given = lowered([1e-4, 8e-4]).on([], (), over)
    assert sensitivity.measured(given) == given.operators
    outputs, asked = [np.ones(2, np.float32)], list[int]()

    def checked() -> None:
        asked.append(1)
        if len(asked) > 3:
            over()

    tried = sensitivity._Tried(lambda _: outputs, 8, checked)  # pyright: ignore[reportPrivateUsage]
    with pytest.raises(OutOfTimeError):
        tried.effects(range(8), [outputs])
    assert len(asked) == 4
