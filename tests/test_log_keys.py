"""Keys of kernels and targets: one for one computation, whatever it is called and whoever asks."""

import dataclasses
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_corpus import KERNELS
from tvm.script import from_source
from tvm_ffi import structural_map

from hybridc.compiler import driver, target
from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.log import keys, workload

DIGITS = Path(__file__).parent.parent / "examples/digits"
KERNEL = """
@T.prim_func(s_tir=True, private=True)
def {name}({x}: T.Buffer(({rows}, {depth}), "{dtype}"), {w}: T.Buffer(({depth}, 8), "{dtype}"),
           {y}: T.Buffer(({rows}, 8), "{dtype}")):
    {sum} = T.sblock_alloc_buffer(({rows}, 8), "{dtype}")
    for {i}, {j}, {k} in T.grid({rows}, 8, {depth}):
        with T.sblock("{block}"):
            v{i}, v{j}, v{k} = T.axis.remap("SSR", [{i}, {j}, {k}])
            with T.init():
                {sum}[v{i}, v{j}] = T.{dtype}(0)
            {sum}[v{i}, v{j}] = {sum}[v{i}, v{j}] + {x}[v{i}, v{k}] * {w}[v{k}, v{j}]
    for {i}, {j} in T.grid({rows}, 8):
        with T.sblock("{block}_last"):
            v{i}, v{j} = T.axis.remap("SS", [{i}, {j}])
            {y}[v{i}, v{j}] = T.{operator}({sum}[v{i}, v{j}], T.{dtype}({constant}))
"""
NAMES = ("name", "x", "w", "y", "sum", "i", "j", "k", "block")
USUAL = {
    **{name: name for name in NAMES},
    **{"rows": 4, "depth": 6, "dtype": "float32", "operator": "max", "constant": 0.5},
}
# What the form and the digest make of three kernels, under every version of TVM: a change here
# makes every log miss, and wants another workload.VERSION.
GOLDEN = {
    "": "1f66d59d591241c870252de8c857184ea22763f78e3da52b30c7eb0e3554d67d",
    "float16": "540f805e92accb84476564e228211bebaf75dcc400beb668ba81e71f79540e4f",
    "min": "c1b369e3ef2c68798d34eafcca2100a1ebea1f595e12fd6181f9a3e981d90961",
}


def kernel(**given: Any) -> Any:
    return from_source(KERNEL.format(**{**USUAL, **given}))


def key(**given: Any) -> str:
    return keys.of_kernel(kernel(**given)).key


@cache
def corpus() -> list[tuple[str, Any]]:
    cpu = target.parse("avx512", threads=2)
    return [(name, func) for name, builder in KERNELS for func in builder(cpu)]


def golden() -> dict[str, str]:
    """The golden keys as this process finds them."""
    return {"": key(), "float16": key(dtype="float16"), "min": key(operator="min", rows=9)}


def test_keys_are_what_they_were() -> None:
    assert golden() == GOLDEN


def test_another_process_finds_the_same_keys() -> None:
    folder = str(Path(__file__).parent)
    code = f"import sys; sys.path.insert(0, {folder!r}); import test_log_keys as t; print(t.key())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == GOLDEN[""]


identifiers = st.lists(
    st.from_regex(r"[a-z][a-z0-9_]{3,6}", fullmatch=True).filter(lambda n: n not in dir(tvm)),
    min_size=len(NAMES),
    max_size=len(NAMES),
    unique=True,
)


@settings(max_examples=15, deadline=None)
@given(identifiers)
def test_names_do_not_matter(found: list[str]) -> None:
    renamed = dict(zip(NAMES, (f"{name}q" for name in found), strict=True))
    assert key(**renamed) == GOLDEN[""]


@pytest.mark.parametrize(
    "given",
    [{"rows": 5}, {"depth": 7}, {"dtype": "float16"}, {"operator": "min"}, {"constant": 0.25}],
    ids=str,
)
def test_what_is_computed_matters(given: dict[str, Any]) -> None:
    assert key(**given) != GOLDEN[""]
    one, other = (workload.skeleton(workload.form(kernel(**each))) for each in ({}, given))
    assert (one == other) == (given.keys() <= {"rows", "depth"})


def test_every_kernel_has_a_key_and_equal_keys_are_equal_kernels() -> None:
    met: dict[str, Any] = {}
    for name, func in corpus():
        found = keys.of_kernel(func).key
        plain = func.without_attr("op_pattern") if "op_pattern" in func.attrs else func
        if found in met:
            tvm.ir.assert_structural_equal(_unhinted(met[found]), _unhinted(plain))
        met.setdefault(found, plain)
        assert len(found) == 64, name
    assert len(met) > 150


def _unhinted(func: Any) -> Any:
    """A kernel without what only tells how to run it."""

    def bare(block: Any) -> Any:
        fields = (block.iter_vars, block.reads, block.writes, block.name_hint, block.body)
        return tvm.s_tir.SBlock(
            *fields,
            block.init,
            block.alloc_buffers,
            block.match_buffers,
            {key: value for key, value in block.annotations.items() if key == "hybridc.kernel"},
        )

    return func.with_body(structural_map(func.body, (tvm.s_tir.SBlock, bare)))


def test_a_target_is_known_by_its_features() -> None:
    one = target.parse("avx2", threads=2)
    assert keys.of_target(dataclasses.replace(one, cpu="other-name")) == keys.of_target(one)
    for change in ({"threads": 3}, {"l2": one.l2 * 2}, {"features": one.features | {"avx512f"}}):
        assert keys.of_target(dataclasses.replace(one, **change)).key != keys.of_target(one).key


def test_a_machine_measured_anew_is_the_same_target() -> None:
    one = target.parse("avx2", threads=2)
    machine = dataclasses.replace(one.machine, hertz=3.6e9, parallel_cycles=4100.0)
    again = dataclasses.replace(machine, hertz=3.7e9, parallel_cycles=4300.0, measured=True)
    first, second = (dataclasses.replace(one, machine=each) for each in (machine, again))
    assert keys.of_target(first).key == keys.of_target(second).key


def test_the_toolchain_names_what_makes_code() -> None:
    found = keys.of_toolchain().data
    assert set(found) == {"hybridc", "tvm", "llvm", "code_generation"}
    assert str(found["tvm"]) in tvm.__version__ or tvm.__version__ in str(found["tvm"])


def test_another_calibration_is_the_same_workload() -> None:
    """Scales and zero points are numbers within kernels, but none that a schedule depends on."""
    images = np.load(DIGITS / "digits-test.npz")["image"]
    found = []
    for part in (images[:20], 0.7 * images[20:60]):
        options = Options(dtype="int8", threads=1, calibration={"image": part}, verify="off")
        report = driver.compile_source(DIGITS / "digits.onnx", options).report
        found.append({each.workload for each in report.kernels})
    assert found[0] == found[1]
    assert all(found[0])
