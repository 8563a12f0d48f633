"""Arrays of scheduled kernels have the size that the schedule asked for when they are lowered."""

from typing import Any

import cuda_golden
import pytest
import test_gpu
import whole_arrays
from cuda_kernels import gpu, sample
from cuda_models import scheduled
from kernel_corpus import KERNELS
from tvm import tirx
from zoo import ZOO

from hybridc.compiler import frontend, pipeline, target
from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.interfaces import NotApplicable
from hybridc.schedules.cuda import tir

_FAST = ("lstm", "unet")


def planted(whole: bool) -> Any:
    """A kernel of two threads in which a function reads four elements from a place on."""
    made = tirx.decl_buffer([2], "float32", "made")
    held = tir.buffer("held", 16, "float32", "local")
    thread = tir.variable("thread")
    read = tir.call("mma_tf32", *(tir.address(held, tir.number(place)) for place in (0, 4, 12)))
    body = [read, tirx.BufferStore(made, tirx.BufferLoad(held, [3]), [thread])]
    parts = tir.sequence(body)
    held_body = (
        tir.allocated([held], parts) if whole else tirx.SeqStmt([tirx.AllocBuffer(held), parts])
    )
    root = tir.launched([("threadIdx.x", thread, 2)], held_body)
    return tirx.PrimFunc([made], root).with_attrs({"tirx.noalias": True, "s_tir": True})


def test_an_array_that_is_cut_is_told() -> None:
    assert whole_arrays.cut_kernel(planted(whole=True), gpu()) == []
    (told,) = whole_arrays.cut_kernel(planted(whole=False), gpu())
    assert "held has 16 elements, and 13 when it is lowered" in told


@pytest.mark.parametrize("name", cuda_golden.CASES)
def test_arrays_of_each_rule_stay_whole(name: str) -> None:
    made, device = cuda_golden.scheduled(name)
    assert whole_arrays.cut_kernel(made, device) == []


@pytest.mark.parametrize("arch", ["sm_80", "sm_90a"])
@pytest.mark.parametrize("name", test_gpu.KERNELS)
def test_arrays_stay_whole_at_several_points(name: str, arch: str) -> None:
    device = gpu(arch)
    for func in test_gpu.KERNELS[name](device):
        for rule in pipeline.rules(device="cuda"):
            match: Any = rule.match(func, device)
            if isinstance(match, NotApplicable):
                continue
            for point in sample(rule.knobs(match), rule.default(match, device), 3):
                made = rule.schedule(match, point).mod["main"]
                assert whole_arrays.cut_kernel(made, device) == [], (type(rule), point)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in _FAST else pytest.mark.slow) for name in ZOO]
)
def test_arrays_of_whole_models_stay_whole(name: str) -> None:
    animal = ZOO[name]()
    model = frontend.load(animal.source, example_inputs=animal.example_inputs, fallback=False)
    for dtype in ("fp16", "fp32"):
        module, context = scheduled(model, Options(target="sm_90a", dtype=dtype))
        assert whole_arrays.cut(module, context.target) == []


@pytest.mark.parametrize(("name", "builder"), KERNELS, ids=[name for name, _ in KERNELS])
def test_arrays_of_kernels_for_the_cpu_stay_whole(name: str, builder: Any) -> None:
    here = target.parse("cpu")
    for func in builder(here):
        for rule in pipeline.rules():
            match: Any = rule.match(func, here)
            if isinstance(match, NotApplicable):
                continue
            made = rule.schedule(match, rule.default(match, here)).mod["main"]
            assert whole_arrays.cut_kernel(made, here) == [], type(rule)
