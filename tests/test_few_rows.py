"""Products of few rows stream their weights through the same instructions as those of many."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from hybridc.compiler import target
from hybridc.compiler.build import compile_kernel
from hybridc.compiler.kernels import contractions, packing
from hybridc.schedules.skinny_dense import SkinnyDense


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
