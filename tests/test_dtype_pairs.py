"""Activations and weights in precisions of their own: `--dtype fp16+int4-weights`."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx_models import FLOAT, build, node

from hybridc.cli import main as entry
from hybridc.compiler import driver, pipeline
from hybridc.compiler.artifacts.artifact import Artifact
from hybridc.compiler.assurance.recheck import recheck
from hybridc.compiler.assurance.reduced import reduced
from hybridc.compiler.configuration import plans, presets
from hybridc.compiler.configuration.config import HybridConfig
from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.errors import InputError
from hybridc.compiler.orchestration import precisions


def weight(draw: Any, *shape: int) -> Any:
    return draw.standard_normal(shape).astype(np.float32) / np.float32(shape[0] ** 0.5)


def attentive(rows: int | str = 12, width: int = 64) -> Any:
    """Attention with projections, of which three are one product."""
    draw = np.random.default_rng(0)
    nodes = [
        *(node("MatMul", f"x w{name}", name) for name in "qkv"),
        node("Transpose", "k", "turned", perm=[0, 2, 1]),
        node("MatMul", "q turned", "scores"),
        node("Mul", "scores scale", "scaled"),
        node("Softmax", "scaled", "shares", axis=-1),
        node("MatMul", "shares v", "mixed"),
        node("MatMul", "mixed wo", "y"),
    ]
    weights = {f"w{name}": weight(draw, width, width) for name in "qkvo"}
    shape = (2, rows, width)
    scale = np.array(width**-0.5, np.float32)
    return build(nodes, [("x", FLOAT, shape)], [("y", FLOAT, shape)], {**weights, "scale": scale})


def product(rows: int = 3, width: int = 64) -> Any:
    """One product with constant weights."""
    constants = {"w": weight(np.random.default_rng(0), width, width)}
    shape = (rows, width)
    return build(
        [node("MatMul", "x w", "y")], [("x", FLOAT, shape)], [("y", FLOAT, shape)], constants
    )


def scores() -> Any:
    """A product of two activations, and no weights."""
    shape = (1, 6, 6)
    return build([node("MatMul", "x x", "y")], [("x", FLOAT, shape)], [("y", FLOAT, shape)])


@pytest.mark.parametrize("rows", [12, "n"])
@pytest.mark.parametrize("pair", precisions.PAIRS)
def test_weights_are_packed_and_the_rest_is_rounded(
    pair: str, rows: int | str, tmp_path: Path
) -> None:
    kind, packed = pair.split("+")
    model = attentive(rows)
    made = driver.compile_source(model, Options(dtype=pair))
    steps = [each.partition("{")[0] for each in pipeline.entries(made.artifact.pipeline)]
    order = [steps.index(name) for name in ("quantize-weights", "mixed-precision", "pack-weights")]
    assert order == sorted(order)
    notes = " ".join(made.report.notes)
    assert f"matmul in {packed.removesuffix('-weights')}" in notes
    assert f"operands in {'float16' if kind == 'fp16' else 'bfloat16'}" in notes
    held = {each.dtype.name for each in made.artifact.weights.values()}
    assert held == {"int8" if packed == "int8-weights" else "int32", "bfloat16"}
    assert made.artifact.certificate["precision"] == made.report.precision == pair
    limits = reduced(pair)
    assert limits is not None
    assert made.report.agreement[0]["min_cosine"] == limits.cosine
    onnx.save(model, tmp_path / "model.onnx")
    assert recheck(made.artifact, tmp_path / "model.onnx").holds
    again = Options(pipeline=made.artifact.pipeline, dtype="fp32")
    assert precisions.of_steps(plans.plan(again).steps) == pair


@pytest.mark.parametrize("pair", precisions.PAIRS)
def test_a_pair_is_allowed_what_independent_errors_add_up_to(pair: str) -> None:
    both, (first, second) = reduced(pair), [reduced(part) for part in pair.split("+")]
    assert both is not None
    assert first is not None
    assert second is not None
    assert both.share == pytest.approx(np.hypot(first.share, second.share))
    assert 1 - both.cosine == pytest.approx(2 - first.cosine - second.cosine)


@pytest.mark.parametrize(
    ("model", "told"),
    [
        (
            product(),
            "no other than int4-weights .*: fp16 finds no product beside those with packed",
        ),
        (scores(), "no other than fp16 in this model: it takes products with constant matrices"),
        (build([node("Exp", "x", "y")], [("x", FLOAT, (3,))], [("y", FLOAT, (3,))]), "no matrix"),
    ],
)
def test_a_pair_of_which_one_finds_nothing_is_refused(model: Any, told: str) -> None:
    with pytest.raises(InputError, match=f"dtype fp16.int4-weights .*{told}"):
        driver.compile_source(model, Options(dtype="fp16+int4-weights"))


@pytest.mark.parametrize("dtype", ["int4-weights+fp16", "fp16+bf16", "fp16+", "int8+int8-weights"])
@pytest.mark.parametrize("target", ["cpu", "sm_90"])
def test_what_is_no_pair_is_refused_by_those_that_there_are(dtype: str, target: str) -> None:
    with pytest.raises(InputError, match=r"is not a known pair: fp16\+int8-weights, fp16"):
        plans.plan(Options(dtype=dtype, target=target))


def test_a_pair_is_given_on_the_command_line_and_in_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert presets.options(HybridConfig(dtype="bf16+int8-weights")).dtype == "bf16+int8-weights"
    path = tmp_path / "model.onnx"
    onnx.save(attentive(), path)
    call = ["compile", str(path), "-o", str(tmp_path / "m.hyb"), "--dtype"]
    assert entry.run([*call, "fp16+int8-weights"]) == 0
    assert Artifact.load(tmp_path / "m.hyb").certificate["precision"] == "fp16+int8-weights"
    capsys.readouterr()
    assert entry.run([*call, "int8+fp16"]) == 2
    said = capsys.readouterr().err
    assert "fp16+int4-weights" in said
    assert said.count("\n") == 1
