"""Products of few rows stream their weights through the same instructions as those of many."""

from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from cpus import CPUS
from test_contractions import check, one_node

from hybridc.compiler import target
from hybridc.compiler.building.build import compile_kernel
from hybridc.compiler.kernels.products import contractions, packing
from hybridc.schedules.dense import Dense
from hybridc.schedules.products import tiling
from hybridc.schedules.skinny_dense import SkinnyDense

F32 = "float32"


@pytest.mark.parametrize(
    ("data", "weight", "feature", "instruction"),
    [
        ("uint8", np.int8, "avx512vnni", "vpdpbusd"),
        ("uint8", np.int8, "avx2", "vpmaddwd"),
        ("bfloat16", ml_dtypes.bfloat16, "avx512bf16", "vdpbf16ps"),
    ],
)
def test_narrow_types_take_their_instruction(
    data: str, weight: Any, feature: str, instruction: str
) -> None:
    cpu = target.parse("avx2" if feature == "avx2" else "cpu", threads=2)
    if feature not in cpu.features:
        pytest.skip(f"this host has no {feature}")
    numbers = np.zeros((2048, 2050), weight)
    group = packing.group_for(numbers.dtype.name, cpu)
    packed = packing.pack_matrix(numbers, cpu.lanes(), group)
    rule = SkinnyDense()
    match: Any = rule.match(contractions.dense((4, 2048), packed, 2050, data), cpu)
    kernel = rule.schedule(match, rule.default(match, cpu)).mod["main"]
    assert instruction in compile_kernel(kernel, cpu).mod.inspect_source("asm")


@pytest.mark.parametrize(
    ("rows", "columns", "streams", "vectors"),
    [(1, 1024, 4, 4), (4, 1024, 4, 4), (5, 1024, 4, 2), (1, 992, 4, 2), (1, 1024, 2, 2)],
)
def test_few_rows_have_the_streams_of_weights_that_suit_the_machine(
    rows: int, columns: int, streams: int, vectors: int
) -> None:
    cpu = target.parse("avx512", threads=2)
    cpu = replace(cpu, machine=replace(cpu.machine, streams=streams))
    packed = packing.pack_matrix(np.zeros((4096, columns), np.float32), cpu.lanes())
    rule = SkinnyDense()
    match: Any = rule.match(contractions.dense((rows, 4096), packed, columns, F32), cpu)
    assert rule.default(match, cpu)["vectors"] == vectors


@pytest.mark.parametrize("cpu", CPUS)
@pytest.mark.parametrize(
    ("rows", "depth", "columns"),
    [
        *((1, 1024, 10), (1, 84, 10), (1, 33, 10), (1, 7, 3), (1, 1, 5), (1, 97, 16)),
        *((2, 64, 8), (2, 30, 26), (3, 100, 8), (4, 96, 10), (5, 12, 1), (1, 400, 120)),
    ],
)
def test_divided_sums_are_those_of_numpy(cpu: str, rows: int, depth: int, columns: int) -> None:
    draw = np.random.default_rng(depth)
    x = draw.standard_normal((rows, depth)).astype(np.float32)
    w = draw.standard_normal((depth, columns)).astype(np.float32)
    bias = draw.standard_normal(columns).astype(np.float32)
    proto = one_node("Gemm", {"x": x}, {"w": w, "b": bias})
    check(proto, {"x": x}, cpu, "dense", rtol=1e-4, atol=1e-5 * np.sqrt(depth))


@pytest.mark.parametrize("cpu", CPUS)
@pytest.mark.parametrize(
    ("left", "right"),
    [
        *(((1, 50, 70), (1, 70, 1)), ((12, 9, 333), (12, 333, 1)), ((3, 1, 2048), (3, 2048, 1))),
        *(((8, 20, 7), (8, 7, 1)), ((20, 64), (4, 64, 1)), ((4, 3, 5, 48), (3, 48, 1))),
    ],
)
def test_a_matrix_times_a_vector_adds_up_its_rows(
    cpu: str, left: tuple[int, ...], right: tuple[int, ...]
) -> None:
    draw = np.random.default_rng(len(left))
    feed = {n: draw.standard_normal(s).astype(np.float32) for n, s in (("a", left), ("b", right))}
    check(one_node("MatMul", feed, {}), feed, cpu, "reduction", rtol=1e-4, atol=1e-4)


def test_sums_are_divided_where_few_wait_for_each_other() -> None:
    cpu = target.parse("avx2", threads=1)

    def sums(depth: int, columns: int, rows: int = 1) -> int:
        packed = packing.pack_matrix(np.zeros((depth, columns), np.float32), cpu.lanes())
        match: Any = Dense().match(contractions.dense((rows, depth), packed, columns, F32), cpu)
        point = Dense().default(match, cpu)
        return tiling.sums(match.problem, point["rows"], point["vectors"], cpu)

    assert sums(1024, 10) == 4  # of two vectors; eight multiply-adds are under way at once
    assert sums(33, 8) == 11
    assert sums(31, 8) == 1  # nothing divides it that finds registers
    assert sums(1024, 64) == 2
    assert sums(64, 16, rows=4) == 1


@pytest.mark.parametrize("cpu", CPUS)
def test_divided_sums_are_added_up_in_vectors_of_columns(cpu: str) -> None:
    chosen = target.parse(cpu, threads=1)
    packed = packing.pack_matrix(np.zeros((512, 16), np.float32), chosen.lanes())
    match: Any = Dense().match(contractions.dense((3, 512), packed, 16, F32), chosen)
    point = {"rows": 3, "vectors": 1, "chunk": 1, "panels": 1}
    assert tiling.sums(match.problem, 3, 1, chosen) > 1
    # Vectors of rows would be cut off at the third.
    assert "T.where" not in Dense().schedule(match, point).mod["main"].script()
