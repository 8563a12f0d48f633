"""Where a tuning log may be, and what is said of a place that is none."""

import pytest

from hybridc.compiler.errors import LogError
from hybridc.compiler.log import access


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


@pytest.mark.parametrize("url", ["mysql://a/b", "http://x", "sqlite://", "://"])
def test_other_databases_are_refused(url: str) -> None:
    with pytest.raises(LogError, match="tuning log"):
        access.open_log(url)
