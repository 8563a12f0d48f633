"""Plug-ins: found by file, by entry point and by hand, and every way in which one can be wrong."""

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from hybridc.compiler import pipeline, plugin
from hybridc.compiler.errors import PluginError
from hybridc.compiler.interfaces import Context, IRModule, Pass

HEAD = """
from dataclasses import dataclass
from hybridc.compiler.interfaces import Pass

"""
GOOD = (
    HEAD
    + '''@dataclass(frozen=True)
class Twice(Pass):
    """Do nothing, twice."""

    times: int = 2

    def apply(self, module, context):
        return module
'''
)


@dataclass(frozen=True)
class Sample(Pass):
    """One option of each kind."""

    depth: int = 4
    scale_by: float = 0.5
    deep: bool = False
    mode: str = "fast"

    def apply(self, module: IRModule, context: Context) -> IRModule:
        return module


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "twice.py"
    path.write_text(GOOD)
    return path


def entry_point(folder: Path, name: str, value: str) -> None:
    """Lay out what pip leaves of an installed package."""
    info = folder / "thirdparty-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: thirdparty\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[hybridc.passes]\n{name} = {value}\n")


def fails(message: str) -> "pytest.RaisesExc[PluginError]":
    return pytest.raises(PluginError, match=re.escape(message))


def test_a_file_in_the_folder_is_a_plug_in_and_a_helper_is_not() -> None:
    names = pipeline.passes().names()
    assert "fold-padding" in names
    assert not any("rewrite" in name for name in names)


def test_text_and_object_are_inverses() -> None:
    made = Sample(depth=2, scale_by=1e-05, deep=True, mode="slow")
    assert plugin.text(made) == "sample{depth=2 scale-by=1e-05 deep=true mode=slow}"
    assert plugin.text(Sample()) == "sample"
    assert plugin.options(Sample) == [
        ("depth", "int", 4),
        ("scale-by", "float", 0.5),
        ("deep", "bool", False),
        ("mode", "str", "fast"),
    ]


def test_unknown_names_get_the_nearest_or_all() -> None:
    with fails("no pass is named 'fold-pading'; did you mean 'fold-padding'?"):
        pipeline.passes().load("fold-pading")
    with fails("no pass is named 'xyz'; known: "):
        pipeline.passes().load("xyz")


@pytest.mark.parametrize("spec", ["Twice", "twice{", "twice{times=1}}", "twice times=1", ""])
def test_malformed_text(spec: str) -> None:
    with fails(f"{spec!r} is not of the form name{{option=value ...}}"):
        pipeline.passes().create(spec)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("time=1", "twice has no option 'time'; did you mean 'times'?"),
        ("times", "twice: each option is written once, as times=value"),
        ("times=1 times=2", "twice: each option is written once, as times=value"),
        ("times=two", "twice: times needs int, got 'two'"),
        ("times=", "twice: times needs int, got ''"),
    ],
)
def test_wrong_options(file: Path, options: str, message: str) -> None:
    with fails(message):
        pipeline.passes([file]).create(f"twice{{{options}}}")


def test_a_boolean_is_true_or_false(tmp_path: Path) -> None:
    path = tmp_path / "twice.py"
    path.write_text(GOOD.replace("times: int = 2", "deep: bool = False"))
    catalogue = pipeline.passes([path])
    assert plugin.text(catalogue.create("twice{deep=true}")) == "twice{deep=true}"
    with fails("twice: deep needs bool, got 'yes'"):
        catalogue.create("twice{deep=yes}")


def test_a_plug_in_file_is_used_like_ours(file: Path) -> None:
    catalogue = pipeline.passes([file])
    assert "twice" in catalogue.names()
    assert plugin.text(catalogue.create("twice{times=3}")) == "twice{times=3}"


def test_a_plug_in_file_may_postpone_its_annotations(tmp_path: Path) -> None:
    path = tmp_path / "twice.py"
    path.write_text("from __future__ import annotations\n" + GOOD)
    made = pipeline.passes([path]).create("twice{times=3}")
    assert plugin.text(made) == "twice{times=3}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import nothing_of_this_name", "ModuleNotFoundError: No module named"),
        ("def broken(:", "SyntaxError"),
        (HEAD, "it defines no pass, schedule rule, strategy or backend"),
        (GOOD + GOOD[len(HEAD) :].replace("Twice", "Thrice"), "defines one Pass, found 2"),
        (GOOD.replace("Twice", "Thrice"), "the class of 'twice' must be named Twice, not Thrice"),
        ("import sys\nsys.exit(0)", "SystemExit"),
        (GOOD.replace("def apply", "def aply"), "Twice does not define apply"),
        (GOOD.replace(": int = 2", ": int"), "option 'times' of Twice has no default"),
        (
            GOOD.replace(": int = 2", ": int | None = None"),
            "option 'times' of Twice must be an int",
        ),
        (GOOD.replace(": int = 2", ": tuple = ()"), "must be an int, a float, a bool or a str"),
        (GOOD.replace(": int = 2", ": 'Depth' = 2"), "an option's type is not known: NameError"),
    ],
)
def test_a_plug_in_file_that_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "twice.py"
    path.write_text(text)
    with pytest.raises(PluginError) as caught:
        pipeline.passes([path]).load("twice")
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", ["2twice", "Twice", "twice.old", "twice it"])
def test_a_plug_in_file_has_a_name_that_can_be_written(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"{name}.py"
    path.write_text(GOOD)
    with fails("is written in lower case, as fold_padding.py"):
        pipeline.passes([path])


def test_a_file_of_another_name_is_told_though_nobody_asks_for_it(tmp_path: Path) -> None:
    path = tmp_path / "twice.py"
    path.write_text(GOOD.replace("Twice", "Thrice"))
    with fails("the class of 'twice' must be named Twice, not Thrice"):
        pipeline.passes([path])


RULE = """
from dataclasses import dataclass
from hybridc.compiler.interfaces import NotApplicable, ScheduleRule


@dataclass(frozen=True)
class First(ScheduleRule):
    PLACE

    def match(self, func, target):
        return NotApplicable("never")

    knobs = default = schedule = match
"""


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("pass", "rule 'first' needs a whole number as its priority, got None"),
        ("priority = 'high'", "needs a whole number as its priority, got 'high'"),
        ("priority, device = 7000, 'gpu'", "rule 'first' is for 'cpu' or 'cuda', not 'gpu'"),
    ],
)
def test_a_rule_has_a_place_in_the_order(tmp_path: Path, place: str, message: str) -> None:
    path = tmp_path / "first.py"
    path.write_text(RULE.replace("PLACE", place))
    with fails(message):
        pipeline.rules([path])
    path.write_text(RULE.replace("PLACE", "priority = 7000"))
    assert plugin.name_of(type(pipeline.rules([path])[0])) == "first"


def test_a_plug_in_file_that_is_missing_or_no_python(tmp_path: Path) -> None:
    with fails(f"--plugin {tmp_path / 'none.py'}: no such file"):
        pipeline.passes([tmp_path / "none.py"]).load("none")
    (tmp_path / "twice.txt").write_text(GOOD)
    with fails("not a Python file"):
        pipeline.passes([tmp_path / "twice.txt"]).load("twice")


def test_a_plug_in_must_not_take_a_name_of_ours(tmp_path: Path) -> None:
    path = tmp_path / "fold_padding.py"
    path.write_text(GOOD.replace("Twice", "FoldPadding"))
    with fails("two plug-ins are named 'fold-padding': hybridc.passes.fold_padding and "):
        pipeline.passes([path]).names()


def test_two_plug_in_files_must_not_share_a_name(file: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    second = tmp_path / "other" / "twice.py"
    second.write_text(GOOD)
    with fails(f"two plug-ins are named 'twice': {file} and {second}"):
        pipeline.passes([file, second]).names()


def test_entry_points_bring_plug_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "thirdparty_module.py").write_text(GOOD)
    entry_point(tmp_path, "twice", "thirdparty_module:Twice")
    monkeypatch.syspath_prepend(tmp_path)
    catalogue = pipeline.passes()
    assert "twice" in catalogue.names()
    assert plugin.text(catalogue.create("twice{times=3}")) == "twice{times=3}"


def test_an_entry_point_must_not_take_a_name_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry_point(tmp_path, "fold-padding", "elsewhere:FoldPadding")
    monkeypatch.syspath_prepend(tmp_path)
    with fails("two plug-ins are named 'fold-padding'"):
        pipeline.passes().names()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("thirdparty_wrong:Twice", "the class of 'other' must be named Other, not Twice"),
        ("thirdparty_wrong:dataclass", "is not a Pass"),
        ("thirdparty_wrong:Other", "Other must be a frozen dataclass"),
        ("thirdparty_wrong:Nothing", "'thirdparty_wrong:Nothing' of hybridc.passes cannot be"),
        ("thirdparty_gone:Other", "cannot be imported: ModuleNotFoundError"),
    ],
)
def test_an_entry_point_that_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str, message: str
) -> None:
    text = (
        GOOD + "\n\nclass Other(Pass):\n    def apply(self, module, context):\n        return 1\n"
    )
    (tmp_path / "thirdparty_wrong.py").write_text(text)
    entry_point(tmp_path, "other", value)
    monkeypatch.syspath_prepend(tmp_path)
    with fails(message):
        pipeline.passes().load("other")
