"""Sessions that call a model by the addresses of its arrays: what they read, and what they give."""

import gc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from test_aot import CASES, IMAGES, ROWS, model, node
from threads_calling import mixed_up
from tvm_ffi import from_dlpack

import hybridc
from hybridc.compiler import dims
from hybridc.compiler.aot import addresses
from hybridc.compiler.artifacts.artifact import Artifact
from hybridc.compiler.errors import ArtifactError, InputError
from hybridc.compiler.model import random_feed
from hybridc.compiler.runtime.array_address import address
from hybridc.compiler.runtime.recycled import Recycled
from hybridc.compiler.runtime.session import InferenceSession

# Of 3 KiB and more, which is read and written where it lies, and of less, which is copied.
LARGE = model(IMAGES, {"x": [1, 16, 12, 14]}, ["b", "f"])
SMALL = model(ROWS, {"x": [5, 16]}, ["b", "e"])


@pytest.fixture(scope="module", params=[LARGE, SMALL], ids=["large", "small"])
def artifact(request: pytest.FixtureRequest) -> Artifact:
    return hybridc.compile(request.param, threads=2)


def expected(artifact: Artifact, x: NDArray[np.float32]) -> list[Any]:
    """The answers of the virtual machine."""
    session = InferenceSession(artifact)
    session.instrument(lambda *_: 0)
    return session.run(None, {"x": np.ascontiguousarray(x)})


def forms(x: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """The same numbers in memory of other kinds."""
    frozen = x.copy()
    frozen.flags.writeable = False
    odd = np.empty(x.nbytes + 1, np.uint8)[1:].view(np.float32).reshape(x.shape)
    odd[...] = x
    wide = np.zeros((*x.shape[:-1], 2 * x.shape[-1]), np.float32)
    wide[..., ::2] = x
    return {"plain": x, "frozen": frozen, "odd": odd, "gaps": wide[..., ::2]}


@pytest.mark.parametrize("form", ["plain", "frozen", "odd", "gaps"])
def test_inputs_of_any_memory_are_read(artifact: Artifact, form: str) -> None:
    session, x = InferenceSession(artifact), random_feed(artifact.inputs, 3)["x"]
    session.run(None, {"x": x + 1})
    for _ in range(2):  # also where the last call read elsewhere
        got = session.run(None, {"x": forms(x)[form]})
        session.run(None, {"x": x + 2})
        for one, other in zip(got, expected(artifact, x), strict=True):
            np.testing.assert_array_equal(one, other)


def test_results_are_the_callers_own_and_stay(artifact: Artifact) -> None:
    session, x = InferenceSession(artifact), random_feed(artifact.inputs, 3)["x"]
    first = session.run(None, {"x": x})
    kept = [array.copy() for array in first]
    second = session.run(None, {"x": x * 2})
    assert not any(np.shares_memory(*pair) for pair in zip(first, second, strict=True))
    for array in first:
        assert array.flags.writeable
    del session
    gc.collect()
    for one, other in zip(first, kept, strict=True):
        np.testing.assert_array_equal(one, other)


def test_memory_of_results_is_given_again_only_when_nothing_holds_it() -> None:
    results = Recycled((3, 700), np.dtype(np.float32))
    first, memory = results.next()
    assert memory == first.ctypes.data
    assert memory % 64 == 0
    row, tensor = first[1:, 3], from_dlpack(results.next()[0])
    del first  # a view of it is left, and a tensor of the other
    others = [results.next()[0] for _ in range(3)]
    held = {memory, tensor.data_ptr(), *(array.ctypes.data for array in others)}
    assert len(held) == 5
    del row
    assert results.next()[1] == memory
    del tensor
    assert len({results.next()[1] for _ in range(8)} & held) >= 1


def test_addresses_are_those_that_numpy_tells() -> None:
    whole = np.zeros((4, 6, 5), np.float64)
    frozen = np.frombuffer(b"12345678", np.uint8)
    for array in (whole, whole[1:, ::2], whole[..., 3], whole.T, frozen, frozen[5:], np.array(1)):
        assert address(array) == array.__array_interface__["data"][0]


def test_named_outputs_come_in_the_order_asked_for(artifact: Artifact) -> None:
    session, x = InferenceSession(artifact), random_feed(artifact.inputs, 3)["x"]
    names = [output.name for output in session.get_outputs()]
    every = session.run(None, {"x": x})
    back = session.run(names[::-1], {"x": x})
    for one, other in zip(every, back[::-1], strict=True):
        np.testing.assert_array_equal(one, other)
    (last,) = session.run(names[-1:], {"x": x})
    np.testing.assert_array_equal(last, every[-1])


def test_wrong_inputs_are_refused_and_do_no_harm(artifact: Artifact) -> None:
    session, x = InferenceSession(artifact), random_feed(artifact.inputs, 3)["x"]
    before = session.run(None, {"x": x})
    for wrong in (x.astype(np.float64), x[None], x[..., :-1], x.tolist(), None):
        with pytest.raises(InputError, match=r"input wanted|must be a numpy array"):
            session.run(None, {"x": wrong})
    for one, other in zip(session.run(None, {"x": x}), before, strict=True):
        np.testing.assert_array_equal(one, other)


def test_calls_from_several_threads_do_not_mix(artifact: Artifact) -> None:
    session, x = InferenceSession(artifact), random_feed(artifact.inputs, 3)["x"]
    feeds = [{"x": x * factor} for factor in (1, 2, 3, 4)]
    wanted = [expected(artifact, feed["x"]) for feed in feeds]
    assert not mixed_up(session, feeds, wanted, calls=100)


@pytest.mark.parametrize("case", ["one twice", "an input", "a weight", "a shape of an input"])
def test_results_that_are_no_arrays_of_the_models_own_stay_with_the_virtual_machine(
    case: str,
) -> None:
    artifact = hybridc.compile(CASES[case], threads=1)
    assert addresses.BYTES.encode() not in artifact.library


def test_types_besides_float32() -> None:
    nodes = [
        node("MatMul", "x w", "a"),
        node("Softmax", "a", "b"),
        node("ArgMax", "b", "c", axis=1),
        node("IsNaN", "a", "d"),
    ]
    artifact = hybridc.compile(model(nodes, {"x": [5, 16]}, ["c", "d", "b"]), threads=1)
    assert addresses.BYTES.encode() in artifact.library
    x = random_feed(artifact.inputs, 3)["x"]
    x[1] = np.nan
    got = InferenceSession(artifact).run(None, {"x": x})
    assert [array.dtype for array in got] == [np.int64, np.bool_, np.float32]
    for one, other in zip(got, expected(artifact, x), strict=True):
        np.testing.assert_array_equal(one, other)


FORGED: dict[str, Callable[[Artifact], Artifact]] = {
    "a shorter input": lambda a: replace(a, inputs=(replace(a.inputs[0], shape=(5, 15)),)),
    "an input of other sizes": lambda a: replace(a, inputs=(replace(a.inputs[0], shape=(16, 5)),)),
    "an input of another type": lambda a: replace(a, inputs=(replace(a.inputs[0], dtype="int8"),)),
    "no input": lambda a: replace(a, inputs=()),
    "an input twice": lambda a: replace(a, inputs=(*a.inputs, replace(a.inputs[0], name="y"))),
    "a shorter result": lambda a: replace(
        a, outputs=(replace(a.outputs[0], shape=(1,)), *a.outputs[1:])
    ),
    "a result of another type": lambda a: replace(
        a, outputs=(replace(a.outputs[0], dtype="bfloat16"), *a.outputs[1:])
    ),
    "one result less": lambda a: replace(a, outputs=a.outputs[:-1]),
    "no weights": lambda a: replace(a, weights={}),
    "shorter weights": lambda a: replace(
        a, weights={name: array.ravel()[:1] for name, array in a.weights.items()}
    ),
    "another library": lambda a: replace(a, library=Path(find_library()).read_bytes()),
}


def find_library() -> str:
    """A shared library that is no compiled model: one that this process has loaded."""
    maps = Path("/proc/self/maps").read_text().split()
    return next(path for path in maps if "/libm.so" in path or "/libm-" in path)


@pytest.fixture(scope="module", params=[5, "n"], ids=["by address", "by the virtual machine"])
def genuine(request: pytest.FixtureRequest) -> Artifact:
    return hybridc.compile(model(ROWS, {"x": [request.param, 16]}, ["b", "c"]), threads=1)


@pytest.mark.parametrize("what", FORGED)
def test_what_a_library_was_not_made_for_is_refused(genuine: Artifact, what: str) -> None:
    """Kernels check nothing: they would read and write beyond what is there."""
    forged = FORGED[what](genuine)
    shapes = {spec.name: dims.fixed(spec.shape, {"n": 5}) for spec in forged.inputs}
    feed = {spec.name: np.ones(shapes[spec.name], spec.dtype) for spec in forged.inputs}
    with pytest.raises(
        ArtifactError, match=r"not those of its library|not a compiled model"
    ) as told:
        InferenceSession(forged, 1).run(None, feed)
    assert "\n" not in str(told.value)
