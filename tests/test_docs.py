"""What the guides name exists: files, links, verbs and options."""

import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click
import pytest

from hybridc.cli.main import commands

ROOT = Path(__file__).parent.parent
GUIDES = [
    *(ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "benchmarks" / "README.md",
    *sorted((ROOT / "examples").rglob("*.md")),
]
FOLDERS = {path.name for path in ROOT.iterdir() if path.is_dir()}
# What a reader of docs/new-pass.md would write.
_TO_BE_WRITTEN = {"tests/passes/merge_clips.txt"}
# Where a command of ours ends in a line of a shell.
_ENDS = {"|", ">", ">>", "2>", "&&", "||", ";", "#"}


def each_guide() -> pytest.MarkDecorator:
    return pytest.mark.parametrize("path", GUIDES, ids=lambda path: str(path.relative_to(ROOT)))


@cache
def verbs() -> dict[str, click.Command]:
    context = click.Context(commands)
    found = {name: commands.get_command(context, name) for name in commands.list_commands(context)}
    return {name: verb for name, verb in found.items() if verb is not None}


@cache
def options() -> set[str]:
    """Of all verbs together."""
    return {
        name
        for verb in verbs().values()
        for each in (verb, *(verb.commands.values() if isinstance(verb, click.Group) else ()))
        for parameter in each.params
        for name in (*parameter.opts, *parameter.secondary_opts)
    } | {"--help", "--debug", "--version"}


def shell_lines(text: str) -> Iterator[list[str]]:
    """The words of each line of a shell, continued lines as one."""
    for block in re.findall(r"^```console\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            if line.startswith("$ "):
                yield shlex.split(line[2:], comments=True)


def spans(text: str) -> list[str]:
    """Code within the prose."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return [re.sub(r"\s+", " ", span) for span in re.findall(r"`([^`]+)`", prose)]


def require_call(words: list[str]) -> None:
    """Fail unless a verb takes these options and that many arguments."""
    name, *rest = words
    assert name in verbs(), name
    verb = verbs()[name]
    if isinstance(verb, click.Group):
        assert rest[0] in verb.commands, rest
        verb, rest = verb.commands[rest[0]], rest[1:]
    end = next((i for i, word in enumerate(rest) if word in _ENDS), len(rest))
    verb.make_parser(click.Context(verb)).parse_args(rest[:end])


@each_guide()
def test_every_link_leads_somewhere(path: Path) -> None:
    for link in re.findall(r"\]\(([^)#\s]+?)(?:#[^)]*)?\)", path.read_text()):
        if "://" not in link:
            assert (path.parent / link).exists(), link


@each_guide()
def test_every_file_that_is_named_exists(path: Path) -> None:
    for word in (word for span in spans(path.read_text()) for word in span.split(" ")):
        folder, slash, _ = word.partition("/")
        pattern = re.search(r"[*<{]|NAME", word) or word in _TO_BE_WRITTEN
        if slash and folder in FOLDERS and not pattern:
            assert (ROOT / word.partition("::")[0]).exists(), word


@each_guide()
def test_every_command_can_be_called(path: Path) -> None:
    for words in shell_lines(path.read_text()):
        if words[:1] == ["hybridc"]:
            require_call(words[1:])
        elif words[:1] == ["make"]:
            assert f"\n{words[1]}:" in (ROOT / "Makefile").read_text(), words
        elif words[:1] in (["python"], ["pytest"]) and words[1:] and words[1].endswith(".py"):
            assert (ROOT / words[1]).exists(), words


@each_guide()
def test_every_option_in_the_prose_exists(path: Path) -> None:
    for span in spans(path.read_text()):
        words = span.split(" ")
        if words[0] == "hybridc" and len(words) > 1 and words[1][0].isalpha():
            assert words[1] in verbs(), span
        if words[0] == "hybridc" or words[0].startswith("--"):
            named = re.findall(r"(?<!\S)--[a-z][a-z-]*", span)
            assert set(named) <= options(), span


def test_the_code_map_names_files_that_exist() -> None:
    section = (ROOT / "ARCHITECTURE.md").read_text().partition("## Code map\n")[2]
    rows = re.findall(r"^\| (.+?) \| (.+?) \|$", section.partition("\n## ")[0], re.MULTILINE)
    for place, told in rows[1:]:
        homes = [ROOT / "compiler", ROOT]
        for name in re.findall(r"`([\w/*.]+(?:\.py|/))`", place):
            assert any(list(home.glob(name.rstrip("/"))) for home in homes), name
            homes.insert(0, ROOT / "compiler" / name)
        for name in re.findall(r"`([\w/*.]+(?:\.py|/))`", told):
            assert any(list(home.glob(f"**/{name.rstrip('/')}")) for home in homes[:-2]), name
