"""Where a tuning log may be, and what is said of a place that is none."""

from pathlib import Path

import pytest

from hybridc.compiler import target
from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.errors import LogError
from hybridc.compiler.log import access, advisers, connect
from hybridc.compiler.log.urls import hidden


@pytest.mark.parametrize("where", ["me:secret@127.0.0.1:1/none", "127.0.0.1:1/x?password=secret"])
def test_a_server_that_is_not_there_is_one_line(where: str) -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(LogError, match="tuning log postgresql://") as caught:
        access.open_log(f"postgresql://{where}")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["postgresq://me:se/c@ret@host/x", "postgresql://me:ret@h:port/x"])
def test_the_password_of_what_is_no_url_is_not_shown(url: str) -> None:
    with pytest.raises(LogError, match=r"//me:\*\*\*@h") as caught:
        access.open_log(url)
    assert "ret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql:/me:se@cret@h/x",
        "postgresql//me:se@cret@h/x",
        "postgresql:me:se@cret@h/x",
        "me:se@cret@h/x",
    ],
)
def test_a_mistyped_url_is_no_path(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LogError, match=r"\*\*\*@h/x' is not the URL of a tuning log") as caught:
        access.open_log(url)
    assert "cret" not in str(caught.value)
    assert not list(tmp_path.iterdir())
    monkeypatch.setenv("HYBRIDC_LOG", url)
    with pytest.raises(LogError) as caught, advisers.adviser(Options(frozen=True)):
        pass
    assert "cret" not in str(caught.value)
    with advisers.adviser(Options()) as make:  # which compiles, and says why it has no records
        advice = make(target.parse("cpu"))
    assert advice is not None
    assert "is not the URL of a tuning log" in advice.describe()["fault"]
    assert "cret" not in str(caught.value)


def test_a_path_may_have_a_colon(tmp_path: Path) -> None:
    assert connect.parse("a:b.sqlite").database == "a:b.sqlite"
    assert connect.parse("./a:b@c").database == "a:b@c"
    access.open_log(str(tmp_path / "a:b@c")).close()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://u@h/x", "postgresql://u@h/x"),
        ("postgresql://u:/p@h/x", "postgresql://u:***@h/x"),
        ("--log=postgresql://u:p@h/x", "--log=postgresql://u:***@h/x"),
        ("x=1..64", "x=1..64"),
        ("p99<=8ms", "p99<=8ms"),
        ("pkg.mod:fn", "pkg.mod:fn"),
    ],
)
def test_what_is_hidden(text: str, shown: str) -> None:
    assert hidden(text) == shown


@pytest.mark.parametrize("url", ["mysql://a/b", "http://x", "sqlite://", "://"])
def test_other_databases_are_refused(url: str) -> None:
    with pytest.raises(LogError, match="tuning log"):
        access.open_log(url)
