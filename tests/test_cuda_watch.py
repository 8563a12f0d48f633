"""The emulator sees races and accesses that lead astray, in whatever order threads run."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cuda_emulator import needs_compiler, run
from cuda_kernels import gpu
from tvm import tirx

from hybridc.schedules.cuda import tir

THREADS = 64


def kernel(body: Callable[[Any, Any, Any, Any], Any], dtype: str = "float32") -> Any:
    """A kernel of two arrays of 256: `body` gets these, shared memory and the thread."""
    given, made = (tirx.decl_buffer([256], dtype, name) for name in ("given", "made"))
    shared = tir.buffer("held", 256, dtype, "shared.dyn")
    thread, block = tir.variable("thread"), tir.variable("block")
    axes = [("blockIdx.x", block, 2), ("threadIdx.x", thread, THREADS)]
    held = tir.allocated([shared], body(given, made, shared, (block, thread)))
    root = tir.launched(axes, held)
    func = tirx.PrimFunc([given, made], root)
    return func.with_attrs({"global_symbol": "main", "tirx.noalias": True, "s_tir": True})


def load(buffer: Any, at: Any) -> Any:
    return tirx.BufferLoad(buffer, [at])


def store(buffer: Any, value: Any, at: Any) -> Any:
    return tirx.BufferStore(buffer, value, [at])


def faults(body: Any, **how: Any) -> str:
    """What the emulator says of a kernel."""
    arrays = [np.ones(256, "float32"), np.zeros(256, "float32")]
    try:
        run(kernel(body, **how), arrays, gpu())
    except AssertionError as error:
        return str(error)
    return ""


def turned(barrier: bool) -> Any:
    """Each thread hands its element to another by way of shared memory."""

    def body(given: Any, made: Any, held: Any, at: Any) -> Any:
        block, thread = at
        place = block * THREADS + thread
        put = tir.call("put<float>", tir.address(held, thread), load(given, place))
        got = tir.got("float32", tir.address(held, THREADS - 1 - thread))
        between = [tir.barrier()] if barrier else []
        return tir.sequence([put, *between, store(made, got, place)])

    return body


def same_place(given: Any, made: Any, held: Any, at: Any) -> Any:
    """Both blocks write the same elements."""
    _, thread = at
    return store(made, load(given, thread), thread)


def beyond(given: Any, made: Any, held: Any, at: Any) -> Any:
    """The last thread reads behind the array."""
    block, thread = at
    place = block * THREADS + thread
    return store(made, load(given, place + 256 - 127), place)


def early(given: Any, made: Any, held: Any, at: Any) -> Any:
    """A copy is read before it is waited for."""
    block, thread = at
    place = block * THREADS + thread
    source, to = tirx.address_of(load(given, place)), tir.address(held, thread)
    got = tir.got("float32", tir.address(held, thread))
    copy = [tir.call("copy4", to, source, tir.number(4)), tir.call("commit")]
    return tir.sequence([*copy, store(made, got, place), tir.call("wait<0>")])


def crossed(first: str, last: str) -> Any:
    """Each thread hands its element to that of the other block of its cluster."""

    def body(given: Any, made: Any, held: Any, at: Any) -> Any:
        block, thread = at
        place = block * THREADS + thread
        put = tir.call("put<float>", tir.address(held, thread), load(given, place))
        got = tir.got("float32", tir.beside(tir.address(held, thread), 1 - block))
        return tir.sequence([put, tir.call(first), store(made, got, place), tir.call(last)])

    return body


@needs_compiler
@pytest.mark.parametrize(
    ("body", "said"),
    [
        (crossed("cluster_done<2>", "cluster<2>"), "a read races with a write"),
        (crossed("cluster<2>", "commit"), "a block is asked that has ended"),
        (crossed("cluster<2>", "cluster_done<4>"), "a cluster has another size"),
        (turned(barrier=False), "race|writes? with"),
        (same_place, "two blocks of a launch touch what one of them writes"),
        (beyond, "outside of the arrays"),
        (early, "a copy that is under way is touched"),
    ],
)
def test_what_is_wrong_on_a_device_is_seen(body: Any, said: str) -> None:
    assert re.search(said, faults(body)), faults(body)


def four_at(first: int) -> Any:
    """A function writes four elements of an array of four from one of them on."""

    def body(given: Any, made: Any, held: Any, at: Any) -> Any:
        block, thread = at
        own = tir.buffer("own", 4, "uint32", "local")
        place = tir.address(own, tir.number(first))
        loaded = tir.call("ldmatrix", place, tir.address(held, tir.number(0)))
        stored = store(made, load(given, thread), block * THREADS + thread)
        return tir.allocated([own], tir.sequence([loaded, stored]))

    return body


@needs_compiler
def test_what_lies_behind_an_array_of_a_thread_is_watched() -> None:
    assert faults(four_at(0)) == ""
    assert "what lies behind an array of a thread is written" in faults(four_at(1))


@needs_compiler
def test_what_is_right_is_let_alone() -> None:
    assert faults(turned(barrier=True)) == ""
    assert faults(crossed("cluster<2>", "cluster_done<2>")) == ""
