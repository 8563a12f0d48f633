"""Sessions that call a model of open sizes by addresses and numbers, beside the virtual machine."""

import gc
from functools import cache
from typing import Any

import numpy as np
import onnxruntime
import open_models
import pytest
from numpy.typing import NDArray
from threads_calling import mixed_up
from tvm import tirx

import hybridc
from hybridc.compiler.aot import open_table, parts, worth
from hybridc.compiler.artifacts.artifact import Artifact
from hybridc.compiler.errors import InputError
from hybridc.compiler.model import random_feed
from hybridc.compiler.runtime import by_sizes
from hybridc.compiler.runtime.by_sizes import BySizes
from hybridc.compiler.runtime.session import InferenceSession
from hybridc.compiler.runtime.tensors import empty

# Of register tiles and strips, one more than these, and others.
SIZES = (1, 2, 3, 4, 5, 15, 16, 17, 31, 64, 65, 67, 129, 200)


def blocks() -> Any:
    """Two blocks of forecasts, each of what the one before left."""
    b = open_models.Builder(3)
    left, total = "x", ""
    for _ in range(2):
        y = b.op("Relu", b.op("Gemm", left, b.noise(32, 20), b.noise(32), transB=1))
        back, ahead = (b.op("Gemm", y, b.noise(n, 32), b.noise(n), transB=1) for n in (20, 6))
        left = b.op("Sub", left, back)
        total = b.op("Add", total, ahead) if total else ahead
    weights = b.op("Softmax", total, axis=0)
    return b.model({"x": (("batch", 20), "float32")}, {total: "float32", weights: "float32"})


MODELS = {"blocks": blocks, "decoder": open_models.decoder, "joined": open_models.joined}


@cache
def compiled(name: str, threads: int, several: bool = True) -> tuple[Artifact, Any]:
    """An artifact whose calls start threads, or do not, at any size; and ONNX Runtime's session."""
    model = MODELS[name]()
    with pytest.MonkeyPatch.context() as patch:
        gain = tirx.const(2**40 if several else -1, "int64")
        patch.setattr(worth, "gains", lambda calls, *_: [gain] * len(calls))
        artifact = hybridc.compile(model, threads=threads, verify="off")
    return artifact, onnxruntime.InferenceSession(model.SerializeToString())


def watched(artifact: Artifact) -> InferenceSession:
    """A session of the virtual machine's."""
    session = InferenceSession(artifact)
    session.instrument(lambda *_: 0)
    return session


def check(name: str, threads: int, several: bool, every: list[dict[str, int]]) -> None:
    artifact, reference = compiled(name, threads, several)
    session, machine = InferenceSession(artifact), watched(artifact)
    assert isinstance(vars(session)["_at_once"], BySizes)
    for sizes in every:
        feed = random_feed(artifact.inputs, 3, sizes)
        wanted, plain = reference.run(None, feed), machine.run(None, feed)
        for _ in range(2):
            for got, want, own in zip(session.run(None, feed), wanted, plain, strict=True):
                assert got.shape == want.shape
                np.testing.assert_allclose(got, want, 1e-3, 1e-4)
                np.testing.assert_array_equal(got, own)


@pytest.mark.parametrize(("threads", "several"), [(1, True), (2, True), (2, False)])
def test_answers_are_those_of_the_virtual_machine(threads: int, several: bool) -> None:
    check("blocks", threads, several, [{"batch": size} for size in (*SIZES, *SIZES[::-2])])


@pytest.mark.slow
@pytest.mark.parametrize(("threads", "several"), [(1, True), (2, True), (2, False)])
def test_sizes_that_are_computed_of_others(threads: int, several: bool) -> None:
    every = [
        {"batch": batch, "new": new, "past": past}
        for batch, new, past in ((1, 1, 1), (1, 5, 3), (2, 1, 40), (3, 17, 9), (1, 1, 62))
    ]
    check("decoder", threads, several, every)
    every = [{"batch": b, "length": n} for b, n in ((1, 1), (2, 7), (5, 16), (3, 67))]
    check("joined", threads, several, every)


def test_results_are_the_callers_own_and_stay() -> None:
    artifact, _ = compiled("blocks", 1)
    session = InferenceSession(artifact)
    feeds = [random_feed(artifact.inputs, seed, {"batch": 120}) for seed in range(4)]
    feeds += [random_feed(artifact.inputs, seed, {"batch": 3}) for seed in range(4)]
    answers = [session.run(None, feed) for feed in feeds + feeds]
    kept = [[array.copy() for array in every] for every in answers]
    arrays = [array for every in answers for array in every]
    for place, array in enumerate(arrays):
        assert array.flags.writeable
        assert not any(np.shares_memory(array, other) for other in arrays[:place])
    machine = watched(artifact)
    del session
    gc.collect()
    for feed, every, copies in zip(feeds + feeds, answers, kept, strict=True):
        for got, copy, want in zip(every, copies, machine.run(None, feed), strict=True):
            np.testing.assert_array_equal(got, copy)
            np.testing.assert_array_equal(got, want)


def forms(x: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """The same numbers in memory of other kinds: read-only, off any boundary, and with gaps."""
    frozen = x.copy()
    frozen.flags.writeable = False
    odd = np.empty(x.nbytes + 1, np.uint8)[1:].view(np.float32).reshape(x.shape)
    odd[...] = x
    wide = np.zeros((*x.shape[:-1], 2 * x.shape[-1]), np.float32)
    wide[..., ::2] = x
    return [frozen, odd, wide[..., ::2], np.asfortranarray(x)]


@pytest.mark.parametrize("batch", [5, 90])
def test_inputs_of_any_memory_are_read(batch: int) -> None:
    artifact, _ = compiled("blocks", 1)
    session, x = InferenceSession(artifact), random_feed(artifact.inputs, 3, {"batch": batch})["x"]
    wanted = watched(artifact).run(None, {"x": x})
    for form in forms(x):
        for got, want in zip(session.run(None, {"x": form}), wanted, strict=True):
            np.testing.assert_array_equal(got, want)


def test_wrong_inputs_are_refused_and_do_no_harm() -> None:
    artifact, _ = compiled("blocks", 1)
    session, x = InferenceSession(artifact), random_feed(artifact.inputs, 3, {"batch": 7})["x"]
    before = session.run(None, {"x": x})
    for wrong in (x.astype(np.float64), x[None], x[..., :-1], x[:0], x.tolist(), None):
        for _ in range(2):
            with pytest.raises(InputError, match=r"input wanted|must be a numpy array"):
                session.run(None, {"x": wrong})
    for got, want in zip(session.run(None, {"x": x}), before, strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.slow
def test_inputs_that_differ_in_a_size_they_share_are_refused() -> None:
    session = InferenceSession(compiled("joined", 1)[0])
    for _ in range(2):
        with pytest.raises(InputError, match="differ in 'length', which they share: 5 and 6"):
            session.run(None, {k: np.zeros((2, n, 6), np.float32) for k, n in (("x", 5), ("y", 6))})


def test_sizes_of_many_calls_are_forgotten() -> None:
    artifact, _ = compiled("blocks", 1)
    session, machine = InferenceSession(artifact), watched(artifact)
    for batch in (*range(1, 100), 3, 70):
        feed = random_feed(artifact.inputs, batch, {"batch": batch})
        for got, want in zip(session.run(None, feed), machine.run(None, feed), strict=True):
            np.testing.assert_array_equal(got, want)


def test_a_call_that_gets_no_memory_leaves_none_that_is_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    artifact, _ = compiled("blocks", 1)
    session = InferenceSession(artifact)
    few, many = (random_feed(artifact.inputs, 1, {"batch": n}) for n in (5, 400))
    wanted, calls = session.run(None, few), vars(session)["_at_once"]
    table, held = calls._last.table, len(calls._ports) + len(calls._kinds)
    memory = calls._last.memory
    assert memory > 0

    def scarce(shape: tuple[int, ...], dtype: Any) -> Any:
        if np.prod(shape) > memory:
            raise MemoryError
        return empty(shape, dtype)

    with monkeypatch.context() as patch:
        patch.setattr(by_sizes, "empty", scarce)
        with pytest.raises(MemoryError):
            session.run(None, many)
        again = session.run(None, few)
    assert calls._memory.nbytes >= memory
    assert table[held] == calls._memory.ctypes.data
    for got, want in zip(again, wanted, strict=True):
        np.testing.assert_array_equal(got, want)


def test_calls_from_several_threads_do_not_mix() -> None:
    artifact, _ = compiled("blocks", 2)
    session, machine = InferenceSession(artifact), watched(artifact)
    feeds = [random_feed(artifact.inputs, n, {"batch": n}) for n in (2, 40, 65, 130)]
    wanted = [machine.run(None, feed) for feed in feeds]
    assert not mixed_up(session, feeds, wanted, calls=50)


def test_named_outputs_and_an_empty_batch() -> None:
    b = open_models.Builder(1)
    y = b.op("Relu", b.op("MatMul", "x", b.noise(8, 16)))
    z = b.op("ReduceSum", y, b.ints(1), keepdims=0)
    model = b.model({"x": (("n", 8), "float32")}, {y: "float32", z: "float32"})
    artifact = hybridc.compile(model, shapes={"x": "n:0..,8"}, threads=1)
    session = InferenceSession(artifact)
    assert isinstance(vars(session)["_at_once"], BySizes)
    for count in (3, 0, 60, 0):
        feed = {"x": np.ones((count, 8), np.float32)}
        sums, rows, again = session.run([z, y, z], feed)
        assert (rows.shape, sums.shape) == ((count, 16), (count,))
        np.testing.assert_allclose(rows.sum(1), sums, 1e-5)
        np.testing.assert_array_equal(sums, again)
        assert count == 0 or not np.shares_memory(sums, again)


def test_kernels_that_cannot_be_split_are_called_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "split", lambda *_: None)
    artifact = hybridc.compile(MODELS["blocks"](), threads=2, verify="off")
    session, machine = InferenceSession(artifact), watched(artifact)
    assert isinstance(vars(session)["_at_once"], BySizes)
    for batch in SIZES:
        feed = random_feed(artifact.inputs, 1, {"batch": batch})
        for got, want in zip(session.run(None, feed), machine.run(None, feed), strict=True):
            np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("case", ["an input", "one twice"])
def test_results_that_are_no_arrays_of_the_models_own_stay_with_the_virtual_machine(
    case: str,
) -> None:
    b = open_models.Builder(1)
    y = b.op("Relu", b.op("MatMul", "x", b.noise(8, 16)))
    other = b.op("Identity", "x" if case == "an input" else y)
    model = b.model({"x": (("n", 8), "float32")}, {y: "float32", other: "float32"})
    artifact = hybridc.compile(model, threads=1)
    assert open_table.SIZES.encode() not in artifact.library
    x = np.ones((3, 8), np.float32)
    assert len(InferenceSession(artifact).run(None, {"x": x})) == 2
