"""Open sizes: how they are written, what bounds them, which ones are tried."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridc.compiler import dims
from hybridc.compiler.artifacts import specs
from hybridc.compiler.assurance import trial_sizes
from hybridc.compiler.dims import Dim
from hybridc.compiler.errors import ArtifactError, InputError
from hybridc.compiler.frontend import parse_shape
from hybridc.compiler.model import TensorSpec, fixed_specs, random_feed


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("1x3x224", (1, 3, 224)),
        ("1,3,224", (1, 3, 224)),
        ("scalar", ()),
        ("?x3", (Dim("?"), 3)),
        ("batchx3", (Dim("batch"), 3)),
        ("1..64x3", (Dim("?", 1, 64), 3)),
        ("4..x3", (Dim("?", 4), 3)),
        ("n:2..8@4x3", (Dim("n", 2, 8, 4), 3)),
        ("?@16", (Dim("?", usual=16),)),
        ("max_length,3", (Dim("max_length"), 3)),
        ("h%32x3", (Dim("h", 32, step=32), 3)),
        ("?%4@8", (Dim("?", 4, usual=8, step=4),)),
        ("h:5..30%4", (Dim("h", 8, 28, step=4),)),
    ],
)
def test_shapes_are_read(text: str, shape: dims.Shape) -> None:
    assert parse_shape(f"x={text}") == ("x", shape)
    assert dims.parse_shape(dims.write(dims.parse_shape(text))) == tuple(
        Dim(s.name, s.low, s.high, step=s.step) if isinstance(s, Dim) else s for s in shape
    )


@pytest.mark.parametrize(
    "text",
    [
        *("", "9..3", "1..2@3", "a-b", "3..4..5", "1..9999999999", "@", "%0", "1..3%4"),
        *("?%4@6", "2147483648", "3x9999999999", "n+9999999999", "9" * 5000, "1..3%" + "9" * 5000),
    ],
)
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        dims.parse(text)


@pytest.mark.parametrize(
    ("given", "shape"),
    [
        ("?x3", (Dim("?"), 3)),
        ((None, 3), (Dim("?"), 3)),
        (("batch", 3), (Dim("batch"), 3)),
        ([Dim("n", 1, 4), 3], (Dim("n", 1, 4), 3)),
        (8, (8,)),
        ("1..4", (Dim("?", 1, 4),)),
    ],
)
def test_shapes_are_taken_from_python(given: object, shape: dims.Shape) -> None:
    assert dims.shape(given) == shape


@pytest.mark.parametrize("given", [(1.5,), ({},), (-1,), (2**31,), ("x y",)])
def test_other_objects_are_no_shapes(given: object) -> None:
    with pytest.raises(InputError):
        dims.shape(given)


def test_dims_of_one_name_have_one_pair_of_bounds() -> None:
    shapes: dict[str, dims.Shape] = {"a": (Dim("n"), 3), "b": (Dim("n", 1, 8), Dim("m"))}
    assert dims.united(shapes)["a"] == (Dim("n", 1, 8), 3)
    with pytest.raises(
        InputError, match=r"n:1..8 and n:2..8: a size can have only one pair of bounds"
    ):
        dims.united({**shapes, "c": (Dim("n", 2, 8),)})
    with pytest.raises(InputError, match="measured at only one value"):
        dims.united({"a": (Dim("n", usual=2),), "b": (Dim("n", usual=3),)})


def test_a_call_has_one_size_for_each_name() -> None:
    shape = (Dim("n", 1, 8), 3)
    assert dims.fits(shape, (8, 3))
    assert not dims.fits(shape, (9, 3))
    assert not dims.fits(shape, (8, 4))
    assert not dims.fits(shape, (8, 3, 1))
    assert dims.bind({"a": (shape, (5, 3)), "b": (shape, (5, 3))}) == {"n": 5}
    with pytest.raises(
        InputError, match="inputs 'a' and 'b' differ in 'n', which they share: 5 and 6"
    ):
        dims.bind({"a": (shape, (5, 3)), "b": (shape, (6, 3))})


@given(
    st.dictionaries(
        st.sampled_from("abc"),
        st.tuples(st.integers(1, 40), st.integers(0, 80) | st.none(), st.integers(1, 5)),
        min_size=1,
    )
)
def test_trials_are_within_the_bounds_and_touch_them(
    drawn: dict[str, tuple[int, int | None, int]],
) -> None:
    found = {
        n: dims.checked(Dim(n, low, None if more is None else low + step + more, step=step))
        for n, (low, more, step) in drawn.items()
    }
    trials = trial_sizes.trials(found)
    assert trials[0] == dims.nominal(found)
    assert len(trials) <= 3 + len(found)
    for name, dim in found.items():
        sizes = {trial[name] for trial in trials}
        assert all(map(dim.admits, sizes))
        assert dim.low in sizes
        assert dim.high is None or dim.high in sizes
        if dim.high is None or dim.high > dim.low + dim.step:
            assert any(dim.low < size and size != dim.high for size in sizes)


def test_what_nothing_bounds_is_tried_beyond_every_tile_where_that_is_cheap() -> None:
    found = {"n": Dim("n"), "h": Dim("h", 4, step=4), "m": Dim("m", 1, 8)}
    large = trial_sizes.large(found, lambda sizes: sizes["n"] * sizes["h"] < 100)
    assert large == [[{"n": 19, "h": 4, "m": 1}], [{"n": 1, "h": 24, "m": 1}]]
    assert [sizes["n"] for sizes in trial_sizes.large(found, lambda _: True)[0]] == [131, 19]
    assert trial_sizes.large(found, lambda _: False) == [[], []]


def test_specs_keep_their_bounds_as_data() -> None:
    spec = TensorSpec("x", (Dim("n", 2, 8, 4), Dim("h", 4, step=4), 3), "float32")
    assert specs.from_json([specs.to_json(spec)]) == (spec,)
    assert spec.describe() == "x float32[n:2..8,h:4..%4,3]"


@pytest.mark.parametrize(
    "size", [-1, 1.5, "n", {"size": "n", "low": -1, "high": None, "at": None}, {}]
)
def test_a_damaged_size_is_an_error(size: object) -> None:
    with pytest.raises(ArtifactError):
        specs.from_json([{"name": "x", "shape": [size], "dtype": "float32"}])


def test_sizes_are_fixed_to_measure() -> None:
    inputs = (
        TensorSpec("x", (Dim("n", 1, 8), 3), "float32"),
        TensorSpec("y", (Dim("n", 1, 8),), "int64"),
    )
    assert [s.shape for s in fixed_specs(inputs, {})] == [(8, 3), (8,)]
    assert [s.shape for s in fixed_specs(inputs, {"n": (2,)})] == [(2, 3), (2,)]
    assert [s.shape for s in fixed_specs(inputs, {"x": (5, 3)})] == [(5, 3), (5,)]
    assert random_feed(inputs, sizes={"n": 3})["x"].shape == (3, 3)
    for shapes in ({"n": (9,)}, {"x": (5, 4)}, {"m": (1,)}, {"n": (Dim("n"),)}):
        with pytest.raises(InputError, match="--shape"):
            fixed_specs(inputs, shapes)
