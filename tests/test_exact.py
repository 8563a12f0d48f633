"""What rounds differently from the model's operators gives way where the tolerance asks for it."""

import numpy as np
import onnx
import pytest
from test_contractions import noise, one_node

from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.driver import compile_source


@pytest.fixture(scope="module")
def convolution() -> onnx.ModelProto:
    """3x3 over so many channels that Winograd's filtering pays."""
    x, w = noise(1, 64, 56, 56), noise(64, 64, 3, 3)
    return one_node("Conv", {"x": x}, {"w": w}, pads=[1] * 4)


def rules(proto: onnx.ModelProto, options: Options) -> set[str]:
    return {record.rule for record in compile_source(proto, options).report.kernels}


def test_winograd_is_used_within_its_tolerance(convolution: onnx.ModelProto) -> None:
    assert "winograd-conv2d" in rules(convolution, Options(atol=1e-2))


def test_exact_forbids_it(convolution: onnx.ModelProto) -> None:
    assert "winograd-conv2d" not in rules(convolution, Options(atol=1e-2, exact=True))


def test_beyond_the_tolerance_the_model_is_compiled_again(
    convolution: onnx.ModelProto,
) -> None:
    """A pixel far above the others spoils its tile's small outputs, but no direct ones."""
    x = noise(1, 64, 56, 56)
    x[:, :, ::8, ::8] = 1e5
    outcome = compile_source(convolution, Options(calibration={"x": x}))
    assert "winograd-conv2d" not in {record.rule for record in outcome.report.kernels}
    assert "pack-weights{winograd=false}" in outcome.report.pipeline
    assert any(note.startswith("compiled again") for note in outcome.report.notes)
    assert all(np.isfinite(output["max_abs"]) for output in outcome.report.agreement)
