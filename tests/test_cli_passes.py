"""`hybridc passes` with --kind lists and explains plug-ins of the other kinds."""

import json
from pathlib import Path

import pytest

from hybridc.cli import main as entry
from hybridc.cli._plugin_kinds import OTHERS

FOLDERS = {
    "rules": "schedules",
    "strategies": "autotune",
    "control": "compiler/control",
    "backends": "compiler/backends",
    "peers": "compiler/peers",
}
ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("kind", OTHERS)
def test_every_file_is_listed_with_what_it_is(
    kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert entry.run(["passes", "--kind", kind, "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    files = [path.stem for path in (ROOT / FOLDERS[kind]).glob("[!_]*.py")]
    wanted = {name.replace("_", "-") for name in files}
    assert {each["name"] for each in listed["plugins"]} >= wanted
    assert all(each["summary"] for each in listed["plugins"])
    assert entry.run(["passes", "--kind", kind]) == 0
    assert capsys.readouterr().out.startswith(kind)


def test_one_is_explained_with_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.run(["passes", "evolutionary", "--kind", "strategies"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("evolutionary\n")
    assert "seed" in out


def test_an_unknown_name_is_refused_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.run(["passes", "dens", "--kind", "rules"]) == 2
    assert "did you mean 'dense'?" in capsys.readouterr().err
