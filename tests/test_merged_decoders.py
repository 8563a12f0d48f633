"""Graphs between which an input chooses, as exporters merge decoders, against ONNX Runtime."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from merged_decoders import SWITCH, feed, merged
from onnx_models import noise

from hybridc.compiler import driver, frontend
from hybridc.compiler.artifacts.artifact import Artifact
from hybridc.compiler.assurance.open_answers import References
from hybridc.compiler.assurance.recheck import recheck
from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.dims import Dim
from hybridc.compiler.errors import InputError
from hybridc.compiler.runtime.session import InferenceSession


@cache
def compiled() -> InferenceSession:
    """Of open sizes, compared with the reference as it was compiled."""
    return InferenceSession(driver.compile_source(merged(), Options(threads=1)).artifact, 1)


def agrees(session: InferenceSession, model: Any, given: dict[str, Any]) -> None:
    reference = onnxruntime.InferenceSession(model.SerializeToString())
    wanted: Any = reference.run(None, given)
    for got, right in zip(session.run(None, given), wanted, strict=True):
        assert (got.shape, got.dtype) == (right.shape, right.dtype)
        np.testing.assert_allclose(got, right, 1e-4, 1e-5)


@pytest.mark.parametrize("batch", [1, 3])
def test_the_first_tokens_and_those_behind_them(batch: int) -> None:
    for on, new, past, coded in [
        (False, 5, 0, 7),
        (True, 1, 5, 7),
        (True, 1, 6, 7),
        (False, 70, 0, 33),
        (True, 3, 70, 33),
        (True, 4, 0, 2),
    ]:
        agrees(compiled(), merged(), feed(on, batch, new, past, coded))


def test_weights_of_both_graphs_are_held_once() -> None:
    held = [array.tobytes() for array in compiled().artifact.weights.values() if array.size]
    assert len(held) == len(set(held))
    assert compiled().artifact.report["memory"]["activations"] > 0


def test_sizes_that_a_branch_does_not_take_are_one_error() -> None:
    for on, columns in [(True, 5), (False, 9)]:
        given = feed(on, 2, 4, 3, 6) | {"mask": noise(2, 1, columns)}
        with pytest.raises(
            InputError, match=r"do not fit each other in the branch.*: those of '\w+' are"
        ):
            compiled().run(None, given)
    agrees(compiled(), merged(), feed(on=True, batch=2, new=4, past=3, coded=6))


def test_each_branch_is_compared_at_sizes_that_make_sense_to_it() -> None:
    model = frontend.load(merged(total="past + new"))
    notes = "\n".join(model.notes)
    assert f"where {SWITCH} is false: sizes that stay open" in notes
    assert "new is past + new" in notes  # where nothing is behind others
    others = (Dim(f"present_cross_{axis}", low=0) for axis in (0, 2))
    assert [str(size) for size in model.outputs[0].shape] == ["batch", "1", "new", "4"]
    assert model.outputs[2].shape == (next(others), 1, next(others), 4)
    sized = References().of(model, 0)
    asked = [bool(each.feeds[0][SWITCH][0]) for each in sized]
    assert set(asked) == {False, True}
    for on, each in zip(asked, sized, strict=True):
        shapes = {name: array.shape for name, array in each.feeds[0].items()}
        earlier = shapes["past"][2] if on else 0
        assert shapes["mask"][2] == shapes["x"][2] + earlier


def test_an_artifact_is_held_against_its_model_again(tmp_path: Path) -> None:
    onnx.save(merged(), tmp_path / "merged.onnx")
    compiled().artifact.save(tmp_path / "merged.hyb")
    artifact = Artifact.load(tmp_path / "merged.hyb")
    found = recheck(artifact, tmp_path / "merged.onnx")
    assert found.holds
    assert {each.output for each in found.examined.agreement} == {"y", "present", "present_cross"}


def test_fixed_sizes_need_no_region() -> None:
    model = merged(batch=2, crossed="passed", sizes=(3, 4, 5))
    artifact = driver.compile_source(model, Options(threads=1)).artifact
    assert artifact.regions == ()
    session = InferenceSession(artifact, 1)
    for on in (True, False):
        agrees(session, model, feed(on=True, batch=2, new=3, past=4, coded=5) | given_for(on))


def given_for(on: bool) -> dict[str, Any]:
    return {SWITCH: np.array([on]), "mask": noise(2, 1, 1)}


def test_a_gpu_is_refused_in_one_line() -> None:
    with pytest.raises(InputError, match="chooses between branches"):
        driver.compile_source(merged(), Options(target="sm_90a"))
