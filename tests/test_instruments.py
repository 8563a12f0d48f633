"""What watches a pipeline run."""

import re
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import golden
import numpy as np
import pytest

from hybridc.compiler import instruments, pipeline
from hybridc.compiler.assurance.verify import How
from hybridc.compiler.errors import InputError, WrongAnswerError
from hybridc.compiler.instruments import DumpIr, NumericVerify, Timing
from hybridc.compiler.interfaces import Context, IRModule, Pass
from hybridc.compiler.ir.evaluate import evaluate
from hybridc.compiler.model import Array, Feed, Model, TensorSpec

FEED = {"x": np.array([[0, 1, 2], [-3, 4, -5]], "float32")}


@dataclass(frozen=True)
class Keep(Pass):
    """Change nothing."""

    def apply(self, module: IRModule, context: Context) -> IRModule:
        return module


@dataclass(frozen=True)
class Shift(Pass):
    """Add a number to every weight: a wrong rewrite."""

    by: float = 0.5

    def apply(self, module: IRModule, context: Context) -> IRModule:
        from hybridc.compiler.ir import rewrite

        def shifted(value: Any, graph: rewrite.Graph) -> Any:
            weight = graph.constant(value.args[1]) if rewrite.operator(value) == "matmul" else None
            if weight is None or weight[0, 0] != 0:
                return None
            other = rewrite.constant(weight.astype(np.float32) + self.by, "float32")
            return type(value)(value.op, [value.args[0], other], value.attrs)

        return rewrite.rewrite(module, shifted)


@pytest.fixture
def context() -> Context:
    return Context(golden.TARGET)


@pytest.fixture
def model(module: Any) -> Model:
    def reference(feed: Feed) -> list[Array]:
        """The module of the fixture in numpy."""
        hidden = np.maximum(feed["x"] + np.array([-1, 0, 1], "float32"), 0)
        return [hidden @ np.arange(12, dtype="float32").reshape(3, 4)]

    return Model(
        "small",
        module,
        (TensorSpec("x", (2, 3), "float32"),),
        (TensorSpec("y", (2, 4), "float32"),),
        reference,
    )


def checker(model: Model) -> NumericVerify:
    return NumericVerify(model, [FEED], [model.reference(FEED)])


def test_timing_has_an_entry_for_each_pass(module: Any, context: Context) -> None:
    timing = Timing()
    pipeline.run(pipeline.parse("fold-constants{limit=9},fold-padding"), module, context, [timing])
    assert [name for name, _ in timing.seconds] == ["fold-constants{limit=9}", "fold-padding"]
    assert all(seconds > 0 for _, seconds in timing.seconds)


def test_only_passes_that_change_something_are_dumped(
    module: Any, context: Context, tmp_path: Path
) -> None:
    steps = (Keep(), Shift(), Keep(), Shift(by=-0.5))
    pipeline.run(steps, module, context, [DumpIr(tmp_path / "new" / "ir")])
    names = sorted(path.name for path in (tmp_path / "new" / "ir").iterdir())
    assert names == ["02-shift-after.py", "02-shift-before.py"]
    assert "R.matmul" in (tmp_path / "new" / "ir" / names[0]).read_text()


def test_a_dump_leaves_the_weights_out(context: Context, tmp_path: Path) -> None:
    from tvm import relax
    from tvm.script import from_source

    text = """
@I.ir_module
class Module:
    @R.function
    def main(x: R.Tensor((1, 300), "float32"), w: R.Tensor((300, 300), "float32")):
        with R.dataflow():
            y = R.matmul(x, R.permute_dims(w))
            R.output(y)
        return y
"""
    weight = np.random.default_rng(0).random((300, 300)).astype("float32")
    module = relax.transform.BindParams("main", {"w": weight})(from_source(text))
    pipeline.run(pipeline.parse("fold-constants"), module, context, [DumpIr(tmp_path)])
    assert all(path.stat().st_size < 2000 for path in tmp_path.iterdir())


def test_a_dump_that_cannot_be_written(module: Any, context: Context, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with pytest.raises(InputError, match=re.escape(f"cannot write IR to {blocked}: ")):
        pipeline.run((Shift(),), module, context, [DumpIr(blocked)])
    assert blocked.read_text() == "in the way"


def test_right_answers_pass(model: Model, context: Context) -> None:
    steps = pipeline.parse("simplify-inference,fold-constants,fold-batch-norm")
    pipeline.run(steps, model.module, context, [checker(model)])


def test_a_wrong_answer_names_pass_output_element_and_values(
    model: Model, context: Context
) -> None:
    with pytest.raises(WrongAnswerError) as caught:
        pipeline.run((Keep(), Shift()), model.module, context, [checker(model)])
    # Row 0 is relu([-1, 1, 3]) @ dense; every weight grew by a half.
    assert str(caught.value).startswith(
        "after pass shift: output 'y' differs from the reference at [0,0]: "
        "wanted 28, got 30 (rtol 0.001, atol 0.0001)"
    )


def test_the_tolerance_may_be_wider(model: Model, context: Context) -> None:
    lenient = NumericVerify(model, [FEED], [model.reference(FEED)], How(0.5, 2.5))
    pipeline.run((Shift(),), model.module, context, [lenient])


def test_as_much_is_allowed_as_products_were_lowered(model: Model, context: Context) -> None:
    how = How(precision="int8-weights")
    off = replace(model, reference=lambda feed: [model.reference(feed)[0] * np.float32(1.06)])
    wanted = off.reference(FEED)
    few, many = (
        NumericVerify(off, [FEED], [wanted], how, Counter(matmul=count)) for count in (50, 100)
    )
    many.check(model.module, FEED, wanted)
    with pytest.raises(WrongAnswerError):
        few.check(model.module, FEED, wanted)


def test_a_missing_output_is_a_wrong_answer(model: Model, context: Context) -> None:
    extra = TensorSpec("z", (2, 4), "float32")
    wide = Model("wide", model.module, model.inputs, (*model.outputs, extra), model.reference)
    with pytest.raises(WrongAnswerError, match="after pass shift: 1 outputs where the model has 2"):
        pipeline.run((Shift(),), model.module, context, [checker(wide)])


def test_a_pass_that_changes_nothing_is_not_run_again(
    model: Model, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unwanted(*_: object) -> list[Array]:
        raise AssertionError("evaluated without need")

    monkeypatch.setattr(instruments, "evaluate_model", unwanted)
    pipeline.run((Keep(),), model.module, context, [checker(model)])


def test_every_pass_of_the_default_pipeline_keeps_the_numbers() -> None:
    """TVM's own lowering of the module as it was before the first pass is the oracle."""
    case = golden.Case(
        "a little of everything",
        "default",
        dict.fromkeys(("w", "b", "gamma", "beta", "mean", "variance", "dense")),
        """
@I.ir_module
class Module:
    @R.function
    def main(
        x: R.Tensor((1, 3, 8, 8), "float32"),
        w: R.Tensor((4, 3, 3, 3), "float32"),
        b: R.Tensor((1, 4, 1, 1), "float32"),
        gamma: R.Tensor((4,), "float32"),
        beta: R.Tensor((4,), "float32"),
        mean: R.Tensor((4,), "float32"),
        variance: R.Tensor((4,), "float32"),
        dense: R.Tensor((64, 16), "float32"),
    ):
        with R.dataflow():
            padded = R.nn.pad(x, (0, 0, 0, 0, 1, 1, 1, 1))
            conv = R.add(R.nn.conv2d(padded, w), b)
            norm = R.nn.batch_norm(conv, gamma, beta, mean, variance, axis=1, training=False)
            pooled = R.nn.max_pool2d(R.nn.relu(norm[0]), (2, 2), strides=(2, 2))
            flat = R.nn.dropout(R.reshape(pooled, (1, 64)))
            hidden = R.nn.gelu(R.matmul(flat[0], dense))
            y = R.nn.softmax(hidden)
            R.output(hidden, y)
        return (hidden, y)
""",
        "",
    )
    module, _ = golden.parse(case)
    feed = {"x": np.random.default_rng(1).standard_normal((1, 3, 8, 8)).astype("float32")}
    model = Model(
        "little",
        module,
        (TensorSpec("x", (1, 3, 8, 8), "float32"),),
        (TensorSpec("hidden", (1, 16), "float32"), TensorSpec("y", (1, 16), "float32")),
        lambda feed: evaluate(module, [feed["x"]]),
    )
    check = NumericVerify(model, [feed], [model.reference(feed)])
    context = Context(golden.TARGET, pipeline.rules())
    pipeline.run(pipeline.parse(case.pipeline), module, context, [check])
