"""Products of few rows stream their weights through the same instructions as those of many."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from hybridc.compiler import contractions, target
from hybridc.compiler.build import compile_kernel
from hybridc.schedules.skinny_dense import SkinnyDense

CPU = target.parse("cpu", threads=2)


@pytest.mark.parametrize(
    ("data", "weight", "feature", "instruction"),
    [
        ("uint8", np.int8, "avx512vnni", "vpdpbusd"),
        ("bfloat16", ml_dtypes.bfloat16, "avx512bf16", "vdpbf16ps"),
    ],
)
def test_narrow_types_take_their_instruction(
    data: str, weight: Any, feature: str, instruction: str
) -> None:
    if feature not in CPU.features:
        pytest.skip(f"this host has no {feature}")
    packed = contractions.pack_matrix(np.zeros((2048, 2050), weight), CPU.lanes())
    rule = SkinnyDense()
    match: Any = rule.match(contractions.dense((4, 2048), packed, 2050, data), CPU)
    kernel = rule.schedule(match, rule.default(match, CPU)).mod["main"]
    assert instruction in compile_kernel(kernel, CPU).mod.inspect_source("asm")
