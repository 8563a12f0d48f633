"""The fuzzer's models are valid, the same for a seed, and what fails is reduced and written."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator
from onnx_models import FLOAT, build, node

from hybridc.compiler.errors import InputError, PassError
from hybridc.compiler.orchestration import precisions

FOLDER = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(scope="module")
def fuzzer() -> Iterator[Any]:
    sys.path.insert(0, str(FOLDER))
    yield importlib.import_module("fuzz_models")
    sys.path.remove(str(FOLDER))


@pytest.mark.parametrize("seed", range(20))
def test_models_are_valid_and_their_values_known(fuzzer: Any, seed: int) -> None:
    model, feed = fuzzer.random_operators.model(seed)
    again, _ = fuzzer.random_operators.model(seed)
    assert model.SerializeToString() == again.SerializeToString()
    onnx.checker.check_model(model, full_check=True)
    for value in ReferenceEvaluator(model).run(None, feed):
        assert value.dtype.kind == "b" or np.isfinite(value).all()


@pytest.mark.parametrize("seed", range(3))
def test_models_compile_and_are_right(fuzzer: Any, seed: int) -> None:
    assert fuzzer.verdict(*fuzzer.random_operators.model(seed, 5))[0] in ("pass", "unstable")


@pytest.mark.parametrize("dtype", ["bf16", "fp16", "int8", "int8-weights", "int4-weights"])
def test_lower_precisions_are_held_to_what_rounding_explains(fuzzer: Any, dtype: str) -> None:
    draw = np.random.default_rng(0)
    constants = {
        "w": draw.standard_normal((8, 4, 3, 3)).astype(np.float32),
        "m": draw.standard_normal((5, 16)).astype(np.float32),
    }
    nodes = [node("Conv", "x w", "a"), node("Relu", "a", "b"), node("MatMul", "b m", "y")]
    model = build(nodes, [("x", FLOAT, (1, 4, 6, 7))], [("y", FLOAT, (1, 8, 4, 16))], constants)
    feed = {"x": draw.standard_normal((1, 4, 6, 7)).astype(np.float32)}
    assert fuzzer.verdict(model, feed, how=fuzzer.How(dtype)) == ("pass", "")
    rounded = fuzzer.rounded_reference
    wanted: Any = ReferenceEvaluator(model).run(None, feed)
    near = rounded.run(model, feed, dtype)
    error = np.abs(wanted[0] - near[0]).max()
    assert 0 < error < 0.5 * np.abs(wanted[0]).max()
    off = [wanted[0] + 7 * error + 0.02 * np.abs(wanted[0]).max()]
    assert rounded.unexplained(wanted, near, near, dtype) == ""
    assert "rounding explains" in rounded.unexplained(wanted, near, off, dtype)


@pytest.mark.parametrize("pair", precisions.PAIRS)
def test_pairs_are_held_to_what_both_roundings_explain(fuzzer: Any, pair: str) -> None:
    draw = np.random.default_rng(0)
    constants = {"w": draw.standard_normal((64, 64)).astype(np.float32) / 8}
    nodes = [node("MatMul", "x w", "a"), node("MatMul", "a x", "y")]
    shape = (1, 64, 64)
    model = build(nodes, [("x", FLOAT, shape)], [("y", FLOAT, shape)], constants)
    feed = {"x": draw.standard_normal(shape).astype(np.float32)}
    assert fuzzer.verdict(model, feed, how=fuzzer.How(pair)) == ("pass", "")
    rounded = fuzzer.rounded_reference
    wanted: Any = ReferenceEvaluator(model).run(None, feed)
    errors = [
        np.abs(wanted[0] - rounded.run(model, feed, dtype)[0]).mean()
        for dtype in (pair, *pair.split("+"))
    ]
    assert errors[0] >= 0.9 * max(errors[1:]) > 0


def test_a_model_in_which_half_a_pair_finds_nothing_is_unsupported(fuzzer: Any) -> None:
    model = build([node("MatMul", "x x", "y")], [("x", FLOAT, (6, 6))], [("y", FLOAT, (6, 6))])
    found = fuzzer.verdict(
        model, {"x": np.eye(6, dtype=np.float32)}, how=fuzzer.How("fp16+int4-weights")
    )
    assert found[0] == "unsupported"


def chain() -> tuple[Any, Any]:
    nodes = [node("Relu", "x", "a"), node("Tanh", "a", "b"), node("Neg", "b", "y")]
    model = build(nodes, [("x", FLOAT, (4,))], [("y", FLOAT, (4,))])
    return model, {"x": np.ones(4, np.float32)}


def test_what_fails_is_reduced(fuzzer: Any, monkeypatch: Any, tmp_path: Path, capsys: Any) -> None:
    """A compiler that stumbles over Tanh."""

    def broken(proto: Any, *_: Any) -> Any:
        if "Tanh" in {each.op_type for each in proto.graph.node}:
            raise PassError("no Tanh today")
        return real(proto, *_)

    real = fuzzer.driver.compile_source
    monkeypatch.setattr(fuzzer.driver, "compile_source", broken)
    monkeypatch.setattr(fuzzer.random_operators, "model", lambda *_: chain())
    monkeypatch.setattr(
        sys, "argv", ["fuzz", "--count", "1", "--output", str(tmp_path), "--target", "avx2"]
    )
    assert fuzzer.main() == 1
    said = capsys.readouterr().err
    assert "seed 0: error: no Tanh today" in said
    small = tmp_path / "error-0.onnx"
    assert f"(Tanh): hybridc compile {small} --target=avx2 --verify each" in said
    assert [each.op_type for each in onnx.load(small).graph.node] == ["Tanh"]


def test_wrong_answers_are_seen(fuzzer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Session:
        def __init__(self, *_: Any) -> None: ...

        def run(self, *_: Any) -> Any:
            return [np.zeros(4, np.float32)]

    monkeypatch.setattr(fuzzer, "InferenceSession", Session)
    assert fuzzer.verdict(*chain()) == ("wrong", "output 0: off by 0.762")


def test_models_of_another_generator(
    fuzzer: Any, monkeypatch: Any, tmp_path: Path, capsys: Any
) -> None:
    """An interpreter that stands for one with NNSmith: it knows seed 0 alone."""
    model, feed = chain()
    onnx.save(model, tmp_path / "chain.onnx")
    outputs = {"output y": -np.tanh(feed["x"])}
    np.savez(tmp_path / "chain.npz", **{"input x": feed["x"]}, **outputs)
    script = f'for last; do :; done\ncp {tmp_path}/chain.onnx "$last/0.onnx"\n'
    script += f'cp {tmp_path}/chain.npz "$last/0.npz"\n'
    interpreter = tmp_path / "python"
    interpreter.write_text(f"#!/bin/sh\n{script}")
    interpreter.chmod(0o700)
    options = ["--json", "--generator", "nnsmith", "--interpreter", str(interpreter)]
    monkeypatch.setattr(sys, "argv", ["fuzz", "--count", "1", *options])
    assert fuzzer.main() == 0
    assert "generator=nnsmith" in capsys.readouterr().out


def test_an_interpreter_without_nnsmith(fuzzer: Any, monkeypatch: Any) -> None:
    options = ["--generator", "nnsmith", "--interpreter", "false"]
    monkeypatch.setattr(sys, "argv", ["fuzz", "--count", "1", *options])
    with pytest.raises(InputError, match="cannot run NNSmith"):
        fuzzer.main()
