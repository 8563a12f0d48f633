"""Tables and numbers as people read them."""

import pytest

from hybridc.compiler.text.tables import table
from hybridc.compiler.text.units import counted


def test_negative_numbers_stand_to_the_right() -> None:
    rows = [("a", "-0.07"), ("b", "0.5"), ("c", "-")]
    assert table(("name", "share"), rows).splitlines()[1:] == [
        "a     -0.07",
        "b       0.5",
        "c         -",
    ]


def test_words_stand_to_the_left() -> None:
    assert table(("what", "x"), [("-x", "1"), ("b", "2")]).splitlines()[1:] == [
        "-x    1",
        "b     2",
    ]


@pytest.mark.parametrize(
    ("count", "told"), [(0, "0 points"), (1, "1 point"), (2, "2 points"), (-1, "-1 points")]
)
def test_one_is_singular(count: int, told: str) -> None:
    assert counted(count, "point") == told
