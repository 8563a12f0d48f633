"""Which lower precisions are worth a try, by the target, the limits and the first candidate."""

from dataclasses import replace

import numpy as np
import pytest
from made_up import ROOFS

from hybridc.compiler import target
from hybridc.compiler.anatomy.work import CONVOLUTION, PRODUCT, Operator
from hybridc.compiler.assurance.contract import Contract
from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.hardware import roofline
from hybridc.compiler.orchestration import prospects, stages
from hybridc.compiler.orchestration.expected_gains import gains
from hybridc.compiler.orchestration.expected_gains.gains import Facts
from hybridc.compiler.orchestration.stages import Stage

FAST = Contract("5ms", min_accuracy={"cosine": 0.9})
AVX2 = Options(contract=FAST, target="avx2", threads=1)
WIDE = replace(AVX2, target='{"kind": "llvm", "mcpu": "cooperlake"}')
OLD = '{"kind": "llvm", "mcpu": "x86-64-v2"}'
# Convolutions; one row of a large language model, which reads 4 GB of weights.
BUSY = Facts((Operator("nn.conv2d", CONVOLUTION, 1e11, 4e6, 1e7, 1e7),), ROOFS)
WAITS = Facts((Operator("matmul", PRODUCT, 2e9, 4e9, 1e4, 1e4),), ROOFS)


def hopeful(options: Options, facts: Facts | None) -> list[str]:
    return [name for name in stages.LOSSY if not prospects.vain(name, options, facts)]


def test_what_cannot_be_faster_is_vain() -> None:
    data = [{"x": 1}]
    assert hopeful(AVX2, BUSY) == ["int8", "int8-dynamic"]
    assert hopeful(replace(AVX2, calibration=data), BUSY) == ["int8", "int8-dynamic"]
    assert hopeful(replace(WIDE, calibration=data), BUSY) == ["bf16", "int8", "int8-dynamic"]
    assert hopeful(AVX2, None) == ["int8", "int8-dynamic"]
    waiting = ["bf16", "fp16", "int8-weights", "int8", "int8-dynamic", "int4-weights"]
    assert hopeful(replace(AVX2, calibration=data), WAITS) == waiting


def test_slow_pairs_gain_by_smaller_weights_alone() -> None:
    slow = replace(AVX2, target='{"kind": "llvm", "mcpu": "sapphirerapids"}')
    assert hopeful(slow, BUSY) == ["int8", "int8-dynamic"]
    assert prospects.vain("bf16", slow, BUSY) == "no faster: calls do not wait for the weights"
    assert {"bf16", "fp16"} <= set(hopeful(slow, WAITS))
    assert prospects.vain("fp16", replace(AVX2, target=OLD), WAITS).endswith("fp16 needs f16c")
    probed = replace(slow, target=slow.target[:-1] + ', "machine": {"bf16": 2.0}}')
    assert "bf16" in hopeful(probed, BUSY)


def test_leaving_out_what_finds_nothing_is_vain() -> None:
    stage = Stage("no-fuse-attention", lambda options: options, component="subgraph")
    assert not prospects.idle(stage, BUSY)
    assert not prospects.idle(stage, None)
    idle = replace(BUSY, idle=("fuse-attention", "tuned"))
    assert prospects.idle(stage, idle) == "fuse-attention finds nothing in this model"
    assert not prospects.idle(Stage("tuned", lambda options: options), idle)


def test_a_limit_on_size_that_code_alone_exceeds_is_vain() -> None:
    small = replace(AVX2, contract=Contract(max_size="1kB", min_accuracy={"cosine": 0.9}))
    assert hopeful(small, replace(BUSY, code=2000)) == []
    assert "2 kB are not weights" in prospects.vain("int4-weights", small, replace(BUSY, code=2000))
    assert hopeful(small, replace(BUSY, code=900))


def test_ranges_of_each_call_are_vain_where_ranges_known_beforehand_are_accurate() -> None:
    assert "no faster than int8" in prospects.vain("int8-dynamic", AVX2, BUSY, {"exact", "int8"})
    assert not prospects.vain("int8-dynamic", AVX2, BUSY, {"exact"})


def test_a_limit_on_size_takes_what_is_smaller() -> None:
    small = replace(AVX2, contract=Contract(max_size="1MB", min_accuracy={"cosine": 0.9}))
    assert hopeful(small, BUSY) == ["bf16", "int8-weights", "int8", "int8-dynamic", "int4-weights"]
    assert prospects.vain("fp16", small, BUSY) == "no smaller than bf16"


@pytest.mark.parametrize("precision", ["int8", "bf16"])
def test_a_model_in_a_lower_precision_is_left_so(precision: str) -> None:
    facts = replace(BUSY, precision=precision)
    assert hopeful(WIDE, facts) == []
    assert prospects.vain("int8", WIDE, facts) == f"the model is in {precision} already"


def test_a_gpu_is_asked_for_its_own_instructions() -> None:
    """What the host's CPU has says nothing of it, and few weights are no reason against fp16."""
    hopper, turing = replace(AVX2, target="sm_90a"), replace(AVX2, target="sm_75")
    assert hopeful(hopper, BUSY) == ["tf32", "bf16", "fp16", "int8", "int8-dynamic"]
    assert hopeful(turing, BUSY) == ["fp16"]
    assert "sm_75 has no mma.bf16" in prospects.vain("bf16", turing, BUSY)
    assert "do not wait for the weights" in prospects.vain("int4-weights", hopper, BUSY)
    assert prospects.vain("int4-weights", hopper, WAITS) == ""
    assert "for target kind cpu" in prospects.vain("tf32", AVX2, BUSY)


@pytest.mark.parametrize("cpu", ["sapphirerapids", "cooperlake", "x86-64-v3"])
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_16_bits_that_are_computed_in_fp32_gain_where_weights_are_waited_for(
    cpu: str, precision: str
) -> None:
    made = target.parse(f'{{"kind": "llvm", "mcpu": "{cpu}"}}', 1)
    roofs = roofline.roofs(made)
    attention = Operator("matmul", PRODUCT, 1e6, 0, 1e9, 1e9, dynamic=True)
    facts = [replace(each, roofs=roofs) for each in (BUSY, Facts((attention,), ROOFS), WAITS)]
    busy, moving, waiting = (gains.Analysis().lowered(precision, each) for each in facts)
    assert waiting.mean == pytest.approx(np.log(2), abs=0.01)
    fast = (cpu, precision) == ("cooperlake", "bf16")
    assert (busy.mean > 0.3) == (moving.mean > 0.3) == fast
    assert fast or busy.mean == moving.mean == 0.0
    assert fast or "multiplies it no faster" in waiting.source


def test_gains_on_a_gpu_are_by_its_own_peaks() -> None:
    roofs = roofline.roofs(target.parse("sm_90a"))
    facts = replace(BUSY, roofs=roofs)
    found = {name: gains.Analysis().lowered(name, facts).mean for name in ("tf32", "bf16", "int8")}
    assert 0 < found["tf32"] < found["bf16"] < found["int8"]
    assert roofline.roofs(target.parse("sm_75")).lacking == ("tf32", "bf16", "int8")
