"""The session: what it computes, what it refuses and what it leaves behind; numpy is the oracle."""

import gc
import pickle
import tempfile
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tvm
from numpy.typing import NDArray
from small_models import RNG, B, W, X, dense_artifact

from hybridc.compiler.artifacts.artifact import Artifact
from hybridc.compiler.errors import ArtifactError, InputError
from hybridc.compiler.model import Array
from hybridc.compiler.runtime.node_arg import NodeArg
from hybridc.compiler.runtime.session import InferenceSession


@pytest.fixture(scope="module")
def dense() -> Artifact:
    return dense_artifact()


@pytest.fixture(scope="module")
def session(dense: Artifact, tmp_path_factory: pytest.TempPathFactory) -> InferenceSession:
    path = tmp_path_factory.mktemp("session") / "m.hyb"
    dense.save(path)
    return InferenceSession(path)


def test_inputs_and_outputs_are_described_as_onnx_runtime_does(session: InferenceSession) -> None:
    assert session.get_inputs() == [NodeArg("x", [4, 8], "tensor(float)")]
    assert [output.name for output in session.get_outputs()] == ["y", "z"]


def test_run_computes_all_or_the_named_outputs(session: InferenceSession) -> None:
    y, z = session.run(None, {"x": X})
    np.testing.assert_allclose(y, X @ W + B, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(z, 2 * (X @ W + B), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(session.run([], {"x": X})[1], z)
    np.testing.assert_array_equal(session.run(["z", "y"], {"x": X}), [z, y])
    np.testing.assert_array_equal(session.run(["z"], {"x": X}), [z])
    # By the names that ONNX Runtime's call has.
    np.testing.assert_array_equal(session.run(output_names=["z"], input_feed={"x": X}), [z])


def test_an_output_that_is_asked_for_twice_is_two_arrays(session: InferenceSession) -> None:
    first, z, second = session.run(["y", "z", "y"], {"x": X})
    np.testing.assert_array_equal(first, second)
    assert not np.shares_memory(first, second)
    np.testing.assert_allclose(z, 2 * first, rtol=1e-5, atol=1e-6)


def test_an_artifact_in_memory_runs_like_its_file(
    dense: Artifact, session: InferenceSession
) -> None:
    np.testing.assert_array_equal(
        InferenceSession(dense).run(None, {"x": X}), session.run(None, {"x": X})
    )


def test_the_file_may_go_while_it_is_in_use(dense: Artifact, tmp_path: Path) -> None:
    dense.save(tmp_path / "m.hyb")
    session = InferenceSession(tmp_path / "m.hyb")
    (tmp_path / "m.hyb").unlink()
    np.testing.assert_allclose(session.run(["y"], {"x": X})[0], X @ W + B, rtol=1e-5, atol=1e-6)


def test_results_outlive_later_calls_and_the_session(dense: Artifact) -> None:
    session = InferenceSession(dense)
    first = session.run(["y"], {"x": X})[0]
    kept = first.copy()
    for _ in range(20):
        session.run(None, {"x": RNG.standard_normal((4, 8)).astype(np.float32)})
    np.testing.assert_array_equal(first, kept)
    del session
    gc.collect()
    np.testing.assert_array_equal(first, kept)


def test_threads_do_not_disturb_each_other(session: InferenceSession) -> None:
    given = [RNG.standard_normal((4, 8)).astype(np.float32) for _ in range(4)]
    wrong: list[Array] = []

    def work(x: NDArray[np.float32]) -> None:
        for _ in range(200):
            y = session.run(["y"], {"x": x})[0]
            if not np.allclose(y, x @ W + B, rtol=1e-5, atol=1e-6):
                wrong.append(y)

    threads = [threading.Thread(target=work, args=(x,)) for x in given]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize(
    ("feed", "said"),
    [
        ({}, ["missing inputs: x float32[4,8]"]),
        ({"X_": X, "other": X}, ["missing inputs: x", "'X_' (", "'other' ("]),
        ({"x": X, "xx": X}, ["unknown inputs: 'xx' (did you mean 'x'?)"]),
        ({"x": X.astype(np.float64)}, ["wanted: x float32[4,8]", "given: x float64[4,8]"]),
        ({"x": X[:3]}, ["wanted: x float32[4,8]", "given: x float32[3,8]"]),
        ({"x": X[None]}, ["given: x float32[1,4,8]"]),
        ({"x": X.tolist()}, ["input 'x' must be a numpy array, got list"]),
        ({"x": None}, ["got NoneType"]),
        ([X], ["expected arrays by input name, got list"]),
        ({1: X}, ["missing inputs: x", "1 (known: x)"]),
    ],
)
def test_wrong_feeds_say_what_was_wanted(
    session: InferenceSession, feed: Any, said: list[str]
) -> None:
    with pytest.raises(InputError) as error:
        session.run(None, feed)
    assert "\n" not in str(error.value)
    for words in said:
        assert words in str(error.value)


def test_an_unknown_output_names_the_nearest(dense: Artifact, session: InferenceSession) -> None:
    with pytest.raises(InputError, match=r"no output is named 'yy'; did you mean 'y'\?"):
        session.run(["yy"], {"x": X})
    for wrong in ("y", 0):
        with pytest.raises(InputError, match="expected a list of output names"):
            session.run(wrong, {"x": X})  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="no output is named"):
        session.run([["y"]], {"x": X})  # type: ignore[list-item] # pyright: ignore[reportArgumentType]


def test_a_session_is_no_data(session: InferenceSession) -> None:
    with pytest.raises(InputError, match="cannot be pickled"):
        pickle.dumps(session)
    with pytest.raises(InputError, match="expected an artifact or its path, got int"):
        InferenceSession(5)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ((), "0 inputs given, expected 1: x"),
        ((X, X), "2 inputs given"),
        (("text",), "is not a DLPack tensor"),
        ((X.astype(np.int32),), "given: x int32"),
    ],
)
def test_wrong_tensors_say_what_was_wanted(
    session: InferenceSession, tensors: tuple[Any, ...], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        session(*tensors)


def test_a_wrong_dlpack_tensor_says_what_was_wanted(session: InferenceSession) -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(InputError, match="given: x float16"):
        session(torch.zeros(4, 8, dtype=torch.float16))
    with pytest.raises(InputError, match="is not a DLPack tensor"):
        session(torch.zeros(4, 8).to_sparse())
    with pytest.raises(InputError, match="is not a DLPack tensor"):
        session(torch.zeros(4, 8, dtype=torch.complex64))


def test_a_failed_call_does_no_harm(session: InferenceSession) -> None:
    with pytest.raises(InputError):
        session.run(None, {"x": X[:1]})
    np.testing.assert_allclose(session.run(["y"], {"x": X})[0], X @ W + B, rtol=1e-5, atol=1e-6)


def test_a_cpu_that_lacks_a_feature_is_told(dense: Artifact) -> None:
    needy = replace(dense, target={"features": ["no-such-isa"]})
    with pytest.raises(ArtifactError, match=r"needs CPU features .* lacks: no-such-isa"):
        InferenceSession(needy)


def test_a_library_that_is_none_is_told(dense: Artifact) -> None:
    for library in (b"", b"no library"):
        with pytest.raises(ArtifactError, match="cannot load the artifact's library") as error:
            InferenceSession(replace(dense, library=library))
        assert "\n" not in str(error.value)


def test_the_library_lies_in_private_and_is_gone_at_once(
    dense: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, int]] = []
    load = tvm.runtime.load_module

    def spy(path: str) -> Any:
        seen.append((Path(path).stat().st_mode & 0o777, Path(path).parent.stat().st_mode & 0o777))
        return load(path)

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(tvm.runtime, "load_module", spy)
    session = InferenceSession(dense)
    assert seen == [(0o600, 0o700)]
    assert list(tmp_path.iterdir()) == []
    assert session.run(["y"], {"x": X})[0].shape == (4, 16)


def test_no_room_for_the_library_is_told(
    dense: Artifact, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with pytest.raises(ArtifactError, match="cannot unpack the artifact's library: No such file"):
        InferenceSession(dense)


def test_threads_are_what_was_asked_for(dense: Artifact) -> None:
    single = InferenceSession(dense, threads=1)
    usual = InferenceSession(dense)
    single.run(None, {"x": X})
    assert tvm.runtime.num_threads() == 1
    usual.run(None, {"x": X})
    assert tvm.runtime.num_threads() >= 1
    assert InferenceSession(dense, threads=np.int64(1)).threads == 1  # type: ignore[arg-type]
    for wrong in (0, -1, 10**6, 1.5, "2"):
        with pytest.raises(InputError, match="threads"):
            InferenceSession(dense, threads=wrong)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
