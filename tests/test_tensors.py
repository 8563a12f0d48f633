"""Tensors into and out of a session: any layout, any dtype, copied only where it must be."""

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from small_models import B, W, X, compiled, dense_artifact
from tvm import relax

from hybridc.compiler.model import Array, TensorSpec, random_feed
from hybridc.compiler.runtime.session import InferenceSession
from hybridc.compiler.runtime.tensors import InputPort, empty, to_numpy, to_tensor


@pytest.fixture(scope="module")
def session() -> InferenceSession:
    return InferenceSession(dense_artifact())


def off_by_one(array: Array) -> Array:
    """The same values on memory that is not aligned."""
    memory = np.empty(array.nbytes + 65, np.uint8)
    start = -memory.ctypes.data % 64 + 1
    shifted = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    np.copyto(shifted, array)
    return shifted


def aligned(array: Array) -> Array:
    made = empty(array.shape, array.dtype)
    np.copyto(made, array)
    return made


def read_only(array: Array) -> Array:
    made = aligned(array)
    made.flags.writeable = False
    return made


def of_records(array: Array) -> Array:
    """A field of records, between which the gap is no multiple of an element."""
    records = np.zeros(array.shape, [("tag", "u1"), ("value", array.dtype)])
    records["value"] = array
    return records["value"]


@pytest.mark.parametrize(
    "lay",
    [
        np.asfortranarray,
        off_by_one,
        aligned,
        read_only,
        lambda x: np.repeat(x, 2, 0)[::2],
        of_records,
    ],
    ids=["column-major", "unaligned", "aligned", "read-only", "strided", "of records"],
)
def test_inputs_may_lie_anyhow(session: InferenceSession, lay: Callable[[Array], Array]) -> None:
    given = lay(X)
    np.testing.assert_array_equal(given, X)
    for y in (session.run(["y"], {"x": given})[0], session(given)[0]):
        np.testing.assert_allclose(y, X @ W + B, rtol=1e-5, atol=1e-6)


def test_aligned_memory_is_not_copied() -> None:
    port = InputPort(TensorSpec("x", (4, 8), "float32"))
    array = aligned(X)
    assert port.bind_dlpack(array).data_ptr() == array.ctypes.data
    large = aligned(np.zeros((32, 32), np.float32))
    port = InputPort(TensorSpec("x", (32, 32), "float32"))
    assert port.bind(large).data_ptr() == large.ctypes.data
    assert to_tensor(array).data_ptr() == array.ctypes.data
    assert to_numpy(to_tensor(array), array.dtype).ctypes.data == array.ctypes.data
    assert to_tensor(off_by_one(X)).data_ptr() % 64 == 0


def test_memory_on_the_boundary_that_kernels_ask_for_is_not_copied() -> None:
    memory = aligned(np.zeros(64, np.float32)).reshape(-1)
    array = memory[4:36].reshape(4, 8)  # 16 bytes behind a boundary of 64
    spec = TensorSpec("x", (4, 8), "float32")
    assert InputPort(spec, alignment=16).bind_dlpack(array).data_ptr() == array.ctypes.data
    assert InputPort(spec).bind_dlpack(array).data_ptr() != array.ctypes.data


def test_a_few_bytes_are_copied_which_takes_less_time() -> None:
    array, other = aligned(X), aligned(X + 1)
    port = InputPort(TensorSpec("x", (4, 8), "float32"))
    first = port.bind(array)
    assert first.data_ptr() != array.ctypes.data
    np.testing.assert_array_equal(to_numpy(first, array.dtype), array)
    np.testing.assert_array_equal(to_numpy(port.bind(other), array.dtype), other)


DTYPES = ["float64", "float16", "bfloat16", "int8", "uint8", "int32", "int64", "bool"]


@pytest.mark.parametrize("shape", [(3, 5), (0, 4)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes_pass_through_inputs_weights_and_outputs(dtype: str, shape: tuple[int, int]) -> None:
    def body(given: list[Any], weights: Any) -> list[Any]:
        held = relax.TupleGetItem(weights, 0)
        return [relax.op.permute_dims(given[0]), relax.op.concat([given[0], held], 0)]

    x = random_feed((TensorSpec("x", shape, dtype),))["x"]
    w = random_feed((TensorSpec("w", shape, dtype),), seed=1)["w"]
    outputs = [
        TensorSpec("t", shape[::-1], dtype),
        TensorSpec("c", (2 * shape[0], shape[1]), dtype),
    ]
    artifact = compiled([TensorSpec("x", shape, dtype)], outputs, {"w": w}, body)
    transposed, joined = InferenceSession(artifact).run(None, {"x": x})
    assert transposed.dtype == joined.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(transposed, x.T)
    np.testing.assert_array_equal(joined, np.concatenate([x, w]))


def test_scalars_and_no_inputs_and_no_weights() -> None:
    scalar = TensorSpec("s", (), "float32")
    doubled = compiled([scalar], [scalar], {}, lambda given, _: [relax.op.add(*given, *given)])
    session = InferenceSession(doubled)
    assert session.run(None, {"s": np.float32(2)})[0] == 4
    assert session.run(None, {"s": np.array(2, np.float32)})[0].shape == ()
    weights = {"b": B}
    constant = compiled(
        [],
        [TensorSpec("b", (16,), "float32")],
        weights,
        lambda _, held: [relax.TupleGetItem(held, 0)],
    )
    np.testing.assert_array_equal(InferenceSession(constant)(), B)


def test_results_are_the_callers_own() -> None:
    """A graph that returns its input, a view of it, its weight, and one result twice."""

    def body(given: list[Any], weights: Any) -> list[Any]:
        total = relax.op.add(given[0], given[0])
        held = relax.TupleGetItem(weights, 0)
        return [given[0], relax.op.reshape(given[0], (8, 4)), held, total, total]

    names = ["x", "view", "w", "a", "b"]
    shapes = [(4, 8), (8, 4), (16,), (4, 8), (4, 8)]
    outputs = [TensorSpec(n, s, "float32") for n, s in zip(names, shapes, strict=True)]
    session = InferenceSession(
        compiled([TensorSpec("x", (4, 8), "float32")], outputs, {"w": B.copy()}, body)
    )
    for call in (lambda x: session.run(None, {"x": x}), session):
        given = aligned(X)
        results = call(given)
        for index, result in enumerate(results):
            result[...] = index
        np.testing.assert_array_equal(given, X)
        assert [float(result.flat[0]) for result in results] == [0, 1, 2, 3, 4]
        again = call(given)
        for found, wanted in zip(again, [X, X.reshape(8, 4), B, X + X, X + X], strict=True):
            np.testing.assert_array_equal(found, wanted)


def test_torch_tensors_in_and_out(session: InferenceSession) -> None:
    torch = pytest.importorskip("torch")
    x = torch.from_numpy(X).clone()
    for given in (
        x,
        x.t().contiguous().t(),
        torch.cat([x.flatten()[:1], x.flatten()])[1:].view(4, 8),
        torch.complex(x, -x).conj().imag,  # a minus that torch has yet to carry out
    ):
        y, z = session(given)
        assert isinstance(y, torch.Tensor)
        torch.testing.assert_close(y, x @ torch.from_numpy(W) + torch.from_numpy(B))
        torch.testing.assert_close(z, 2 * y)
    assert InputPort(TensorSpec("x", (4, 8), "float32")).bind_dlpack(x).data_ptr() == x.data_ptr()


def test_torch_bfloat16_that_lies_with_gaps() -> None:
    torch = pytest.importorskip("torch")
    x = torch.randn(3, 5).to(torch.bfloat16)
    port = InputPort(TensorSpec("x", (5, 3), "bfloat16"))
    bound = to_numpy(port.bind_dlpack(x.t()), np.dtype(ml_dtypes.bfloat16))
    np.testing.assert_array_equal(bound.astype(np.float32), x.t().float().numpy())
