"""Options: the words of other compilers, and how much a verb tells of what it does."""

from types import SimpleNamespace
from typing import Any

import click
import pytest
from cli_models import assert_error

from hybridc.cli import _output
from hybridc.cli import main as entry
from hybridc.cli._elsewhere import ARGUMENT, WORDS


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["compile", "m.onnx", "--precision", "fp16"], "here it is `--dtype PRECISION`"),
        (["compile", "m.onnx", "--FP16"], "no such option --FP16: here it is `--dtype fp16`"),
        (["compile", "m.onnx", "--batch_size=8"], "here it is `--shape NAME=8x3x224x224`"),
        (["tune", "m.onnx", "--device", "cuda"], "here it is `--target cuda`"),
        (["compile", "m.onnx", "--opt-level", "3"], "here it is `--level 3`"),
        (["tune", "m.onnx", "--max-trials", "3"], "here it is `--trials 64`"),
        (["compile", "--model", "m.onnx"], "here it is the argument MODEL"),
        (["compile", "--saveEngine=m.hyb", "m.onnx"], "here it is `--output model.hyb`"),
        (["run", "m.hyb", "--inputs", "x.npz"], "here it is `--input NAME=x.npy`"),
        (["run", "m.hyb", "--device", "cuda"], "No such option"),  # it has no target
        (["compile", "m.onnx", "--predcit"], "--predict"),
    ],
)
def test_words_of_other_compilers_are_understood(
    arguments: list[str], part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert entry.run(arguments) == 2
    assert_error(capsys, part)


def test_each_option_that_another_compiler_has_is_one_of_ours() -> None:
    context = click.Context(entry.commands)
    names = entry.commands.list_commands(context)
    verbs = filter(None, (entry.commands.get_command(context, name) for name in names))
    ours = {flag for verb in verbs for each in verb.params for flag in each.opts}
    rows = {here.partition(" ")[0]: words.split() for here, words in WORDS.items()}
    assert rows.keys() - {ARGUMENT} <= ours
    words = [word for each in rows.values() for word in each]
    assert all(word.isalnum() and word == word.lower() for word in words)


def test_progress_is_told_now_and_then_where_nobody_watches(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([5.0, 8.0, 16.0, 17.0, 30.0])
    monkeypatch.setattr(_output, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    every: list[tuple[str, dict[str, Any]]] = [
        ("b\nd\n", {"now_and_then": True}),
        ("a\nb\nc\nd\n", {"now_and_then": True, "verbose": True}),
        ("", {"now_and_then": True, "quiet": True}),
        ("", {}),
    ]
    for told, how in every:
        with _output.progress(**how) as tell:
            for step in "abcd":
                tell(step)
        assert capsys.readouterr() == ("", told)
