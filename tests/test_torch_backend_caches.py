"""`torch.compile(backend=...)` of caches: rows are written in place, whatever else reads them."""

import warnings
from collections.abc import Generator
from typing import Any

import pytest
from dynamo_checks import compiled

from hybridc.compiler.dynamo import torch_calls
from hybridc.compiler.dynamo.torch_backend import FallbackWarning
from hybridc.compiler.errors import InputError

torch = pytest.importorskip("torch")
Cases = dict[str, tuple[Any, int]]


@pytest.fixture(autouse=True)
def _strict(fresh_dynamo: None) -> Generator[None, None, None]:
    """Nothing falls back."""
    del fresh_dynamo
    with warnings.catch_warnings():
        warnings.simplefilter("error", FallbackWarning)
        yield


@pytest.fixture
def in_place(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """For each call of compiled code, the number of arguments in which results were computed."""
    counts: list[int] = []
    real = torch_calls.Direct.__call__

    def counted(self: Any, tensors: Any) -> Any:
        results, written = real(self, tensors)
        counts.append(len(written))
        return results, written

    monkeypatch.setattr(torch_calls.Direct, "__call__", counted)
    return counts


def copied(cache: Any, place: Any, rows: Any) -> Any:
    cache.index_copy_(1, place, rows)
    return cache.sum(-1)


def assigned(cache: Any, place: Any, rows: Any) -> Any:
    cache[:, place] = rows
    return cache * 2


def added(cache: Any, place: Any, rows: Any) -> Any:
    cache[0].index_put_((place,), rows[0], accumulate=True)
    return cache * 2


def read_before(cache: Any, place: Any, rows: Any) -> Any:
    old = cache.sum(-1)
    cache[:, place] = rows
    return old, cache.sum(-1)


def read_after_all(cache: Any, place: Any, rows: Any) -> Any:
    """The old content is needed by what also needs the new one."""
    old = cache.exp()
    cache[:, place] = rows
    return cache @ old.transpose(1, 2)


def twice(cache: Any, place: Any, rows: Any) -> Any:
    cache[:, place] = rows
    first = cache.exp()
    cache[:, place - 1] = rows * 2
    return first, cache.sum(-1)


def returned(cache: Any, place: Any, rows: Any) -> Any:
    cache[:, place] = rows
    return cache, cache[:, :2], cache.sum()


def shifted(cache: Any, place: Any, rows: Any) -> Any:
    cache.copy_(torch.cat([cache[:, 1:], rows[:, :1] + place[0]], 1))
    return cache.mean(1)


def sliced(cache: Any, place: Any, rows: Any) -> Any:
    del place
    cache[:, 2:4] = rows
    return cache * 2


def sliced_of_one(cache: Any, place: Any, rows: Any) -> Any:
    """A slice of what is selected, and places of their own in the same memory."""
    cache[1, 2:6:2] = rows[0]
    cache[0, -1] = 3
    cache[0].index_put_((place,), rows[1])
    return cache.sum(-1)


# With how many results are computed in place; where none, what was there is read too late.
CASES: Cases = {
    "copied": (copied, 1),
    "assigned": (assigned, 1),
    "added": (added, 1),
    "read_before": (read_before, 1),
    "read_after_all": (read_after_all, 1),
    "sliced": (sliced, 1),
    "sliced_of_one": (sliced_of_one, 1),
    "twice": (twice, 1),
    "returned": (returned, 1),
    "shifted": (shifted, 0),
}


def given(kind: str, dtype: Any) -> tuple[Any, Any, Any]:
    memory = (torch.arange(2 * 8 * 16 + 1) % 50).to(dtype)
    cache = {
        "whole": lambda: memory[:-1].view(2, 8, 16),
        "turned": lambda: memory[:-1].view(2, 16, 8).transpose(1, 2),
        "moved": lambda: memory[1:].view(2, 8, 16),
    }[kind]()
    return cache, torch.tensor([3, 6]), torch.full((2, 2, 16), 2, dtype=dtype)


@pytest.mark.parametrize("name", CASES)
def test_a_cache_is_what_eager_makes_of_it(name: str, in_place: list[int]) -> None:
    function, count = CASES[name]
    made = compiled(function)
    ours, theirs = given("whole", torch.float32), given("whole", torch.float32)
    for step in range(3):
        for each in (ours, theirs):
            each[2].fill_(float(step))
            each[1].fill_(step + 2)
            each[1][1] = 7
        torch.testing.assert_close(made(*ours), function(*theirs), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(ours, theirs)
    assert in_place
    assert set(in_place) == {count}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, torch.int8])
def test_caches_of_any_type(dtype: Any, in_place: list[int]) -> None:
    def function(cache: Any, place: Any, rows: Any) -> Any:
        return assigned(cache, place, rows).float()

    made = compiled(function)
    ours, theirs = given("whole", dtype), given("whole", dtype)
    for _ in range(2):
        torch.testing.assert_close(made(*ours), function(*theirs))
        torch.testing.assert_close(ours, theirs)
    assert in_place == [1]


def test_memory_that_moves_or_lies_otherwise(in_place: list[int]) -> None:
    made = compiled(copied)
    for kind in ("whole", "whole", "moved", "turned", "turned", "whole"):
        ours, theirs = given(kind, torch.float32), given(kind, torch.float32)
        torch.testing.assert_close(made(*ours), copied(*theirs))
        torch.testing.assert_close(ours, theirs)
    assert in_place == [1, 0, 0, 1], "gaps and odd addresses are no place for a result"


def test_who_counts_writes_sees_them() -> None:
    made, (cache, place, rows) = compiled(copied), given("whole", torch.float32)
    versions = [cache._version]
    for _ in range(3):
        made(cache, place, rows)
        versions.append(cache._version)
    assert versions == sorted(set(versions))


def test_what_code_was_not_made_for_is_refused() -> None:
    made = compiled(copied)
    calls: list[Any] = []
    real = torch_calls.Direct.__init__

    def kept(self: Any, *args: Any) -> None:
        real(self, *args)
        calls.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch_calls.Direct, "__init__", kept)
        made(*given("whole", torch.float32))
    tensors = given("whole", torch.float32)
    for wrong in (tensors[0][:, :4], tensors[0].double()):
        with pytest.raises(InputError, match="code is for a tensor of"):
            calls[0]([wrong, *tensors[1:]])


def at_one_place(cache: Any, place: Any, rows: Any) -> Any:
    """Among slices and numbers, with values of fewer axes than the place has, and of more."""
    cache[:, place] = rows[:, 0]
    cache[..., place, 2:5] = 7
    cache[1, place, ...] = rows[0, 1]
    cache[:, 3:, place] = rows[0, 0, :5]
    cache[1:, 2, place] = rows[:1, 1, 0]
    return cache * 2


def test_one_place_that_a_tensor_tells(in_place: list[int]) -> None:
    """A tensor of no axes, of which torch asks the number; Dynamo guards that."""
    made, place = compiled(at_one_place), torch.tensor(3)
    (ours, _, rows), (theirs, *_) = given("whole", torch.float32), given("whole", torch.float32)
    for _ in range(3):
        rows = rows + torch.arange(16.0)
        torch.testing.assert_close(made(ours, place, rows), at_one_place(theirs, place, rows))
        torch.testing.assert_close(ours, theirs)
    assert len(in_place) == 2  # the first call is recorded
