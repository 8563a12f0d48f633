"""Models that nobody tuned hybridc for compile with default options and keep their answers.

Compiling compares with ONNX Runtime or torch eager on random inputs; the session is then given
inputs that the compiler never saw.
"""

from collections.abc import Sequence

import numpy as np
import pytest
from zoo import ZOO

from hybridc.compiler import driver, frontend
from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.model import Array
from hybridc.compiler.runtime.session import InferenceSession

# One of each kind; together about a minute on two cores.
FAST = (
    "broadcast_after_product",
    "convnext_v2",
    "gpt2",
    "inception",
    "integer_outputs",
    "integers",
    "light_squeezenet",
    "lstm",
    "masked",
    "scalars",
    "squeeze_excite",
    "unet",
    "wav2vec2",
)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in ZOO],
)
def test_the_answers_are_kept(name: str) -> None:
    animal = ZOO[name]()
    model = frontend.load(animal.source, example_inputs=animal.example_inputs)
    outcome = driver.compile_model(model, Options())
    assert not [note for note in outcome.report.notes if note.startswith("rule ")]
    feed = {spec.name: array for spec, array in zip(model.inputs, animal.feed, strict=True)}
    got = InferenceSession(outcome.artifact).run(None, feed)
    assert_close(got, model.reference(feed))
    if animal.stored:
        assert_close(got, animal.stored)


def assert_close(got: Sequence[Array], wanted: Sequence[Array]) -> None:
    for value, right in zip(got, wanted, strict=True):
        assert value.shape == right.shape
        assert value.dtype == right.dtype
        np.testing.assert_allclose(value, right, rtol=1e-3, atol=1e-4)
