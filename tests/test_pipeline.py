"""The pass manager: reading pipelines, and what becomes of passes that break their word."""

import re
from dataclasses import dataclass, field
from typing import Any

import golden
import pytest

from hybridc.compiler import pipeline, plugin
from hybridc.compiler.errors import ModelError, PassError, PluginError
from hybridc.compiler.interfaces import Context, IRModule, Pass
from hybridc.compiler.ir.rewrite import Graph, operator, rewrite
from hybridc.compiler.pipelines import PIPELINES

NARROWED = (
    "a float32 of 2 dimensions, by a float16 of 2 dimensions: a value keeps its type (cast it back)"
)


@dataclass(frozen=True)
class Keep(Pass):
    """Change nothing."""

    depth: int = 1

    def apply(self, module: IRModule, context: Context) -> IRModule:
        return module


@dataclass(frozen=True)
class Lie(Keep):
    """Change the module given instead of a copy."""

    def apply(self, module: IRModule, context: Context) -> IRModule:
        from tvm import relax

        module["main"] = relax.transform.Normalize()(module)["main"].with_attr("touched", 1)
        return module


@dataclass(frozen=True)
class Narrow(Keep):
    """Make one operator's result another type, and forget to cast it back."""

    of: str = "nn.relu"

    def apply(self, module: IRModule, context: Context) -> IRModule:
        from tvm import relax

        done: list[Any] = []

        def rule(value: Any, _: Graph) -> Any:
            if operator(value) != self.of or done:
                return None
            done.append(value)
            return relax.op.astype(value, "float16")

        return rewrite(module, rule)


@dataclass(frozen=True)
class Crash(Keep):
    """Fail as a bug does."""

    def apply(self, module: IRModule, context: Context) -> IRModule:
        raise ValueError("first line\nsecond line")


@dataclass(frozen=True)
class Forget(Keep):
    """Return nothing, as a function without `return`."""

    def apply(self, module: IRModule, context: Context) -> IRModule:
        pass


@dataclass(frozen=True)
class Leave(Keep):
    """End the process."""

    def apply(self, module: IRModule, context: Context) -> IRModule:
        raise SystemExit(0)


@dataclass(frozen=True)
class Refuse(Keep):
    """Fail as a check of the user's model does."""

    def apply(self, module: IRModule, context: Context) -> IRModule:
        raise ModelError("operator Foo is not supported")


@dataclass(frozen=True)
class Demand(Keep):
    """Ask for more than there is."""

    def requires(self, module: IRModule) -> None:
        raise PassError("it wants loop nests, main is a graph")


@dataclass(frozen=True)
class Promise(Keep):
    """Promise more than it does."""

    def ensures(self, module: IRModule) -> None:
        raise PassError("a dropout is left in main")


@dataclass
class Recorder:
    """Writes down what it sees."""

    name: str
    log: list[str] = field(default_factory=list[str])

    def before(self, step: Pass, module: IRModule) -> None:
        self.log.append(f"{self.name} before {plugin.text(step)}")

    def after(self, step: Pass, before: IRModule, after: IRModule) -> None:
        self.log.append(f"{self.name} after {plugin.text(step)}")


@pytest.fixture
def context() -> Context:
    return Context(golden.TARGET)


def fails(kind: type[Exception], message: str) -> "pytest.RaisesExc[Exception]":
    return pytest.raises(kind, match=f"^{re.escape(message)}$")


def test_a_named_pipeline_stands_for_its_entries() -> None:
    steps = pipeline.parse("default")
    assert pipeline.text(steps) == ",".join(spec for spec, _ in PIPELINES["default"])


def test_text_is_read_and_written_back() -> None:
    given = "fold-constants{limit=64},fold-padding"
    assert pipeline.text(pipeline.parse(f" {given.replace(',', ' , ')} ")) == given
    assert pipeline.parse("") == ()


def test_commas_in_braces_do_not_cut() -> None:
    assert pipeline.split("a{x=1,y=2},b, c") == ["a{x=1,y=2}", "b", "c"]


@pytest.mark.parametrize("text", ["fold-padding,,fold-constants", "fold-padding,", ",", " , fuse"])
def test_a_comma_without_a_pass_is_refused(text: str) -> None:
    with fails(PluginError, f"a pass is missing beside a comma in {text.strip()!r}"):
        pipeline.parse(text)


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(PluginError) as caught:
        pipeline.parse("fold-pading,fold-constants{limt=3},fold-padding")
    assert str(caught.value) == (
        "no pass is named 'fold-pading'; did you mean 'fold-padding'?; "
        "fold-constants has no option 'limt'; did you mean 'limit'?"
    )


def test_an_empty_pipeline_gives_the_module_back(module: Any, context: Context) -> None:
    assert pipeline.run((), module, context) is module


@pytest.mark.parametrize(
    ("step", "kind", "message"),
    [
        (Crash(), PassError, "ValueError: first line"),
        (Forget(), PassError, "apply must return a module, got NoneType"),
        (Leave(), PassError, "SystemExit: 0"),
        (Demand(), PassError, "it wants loop nests, main is a graph"),
        (Promise(), PassError, "a dropout is left in main"),
        (Narrow(), PassError, f"it replaced positive, {NARROWED}"),
        (Narrow(of="matmul"), PassError, f"it replaced y, {NARROWED}"),
        (Lie(), PassError, "it changed the module that it was given; passes return a new one"),
    ],
)
def test_a_failure_names_the_pass_and_those_before_it(
    module: Any, context: Context, step: Pass, kind: type[Exception], message: str
) -> None:
    name = plugin.text(step)
    with fails(kind, f"pass {name} failed: {message}"):
        pipeline.run((step,), module, context)


def test_a_failure_names_the_passes_before_it(module: Any, context: Context) -> None:
    steps = (Keep(), Keep(depth=3), Crash(depth=2), Keep())
    message = "pass crash{depth=2} failed (after keep,keep{depth=3}): ValueError: first line"
    with fails(PassError, message):
        pipeline.run(steps, module, context)


def test_what_a_pass_cannot_take_is_told_without_the_passes_before(
    module: Any, context: Context
) -> None:
    with fails(ModelError, f"pass {plugin.text(Refuse())}: operator Foo is not supported"):
        pipeline.run((Keep(), Refuse()), module, context)


def test_the_cause_of_a_failure_is_kept(module: Any, context: Context) -> None:
    with pytest.raises(PassError) as caught:
        pipeline.run((Crash(),), module, context)
    assert isinstance(caught.value.__cause__, ValueError)


def test_instruments_nest_around_each_pass(module: Any, context: Context) -> None:
    log: list[str] = []
    instruments = (Recorder("outer", log), Recorder("inner", log))
    pipeline.run((Keep(), Keep(depth=2)), module, context, instruments)
    assert log == [
        "outer before keep",
        "inner before keep",
        "inner after keep",
        "outer after keep",
        "outer before keep{depth=2}",
        "inner before keep{depth=2}",
        "inner after keep{depth=2}",
        "outer after keep{depth=2}",
    ]


def test_a_pipeline_by_the_wrong_name_has_the_nearest_named() -> None:
    with pytest.raises(PluginError, match=r"no pipeline is named 'defalt'; did you mean 'default'"):
        pipeline.parse("defalt")
