"""Schedule rules for GPUs: their code is run thread by thread on the CPU, against TVM's own.

Each kernel is run with its threads in three orders, so that a race would show.
"""

from typing import Any

import numpy as np
import pytest
from corpus_rows import ROWS
from cuda_emulator import needs_compiler, run, source_of
from cuda_kernels import check, close, convolution, feed, gpu, product, reference
from kernel_builders import floats, op, operator
from kernel_corpus import RECURRENT
from test_cuda_attention import CASES as ATTENTION
from tvm import te, tirx
from tvm.script import from_source
from tvm.script import tirx as script

from hybridc.compiler import pipeline, plugin
from hybridc.compiler.cuda import launches
from hybridc.compiler.interfaces import NotApplicable
from hybridc.passes import schedule
from hybridc.schedules.cuda import tir
from hybridc.schedules.cuda.operands import CHUNK_BYTES, source

RULES = {plugin.name_of(type(rule)): rule for rule in pipeline.rules(device="cuda")}
PRODUCTS: dict[str, tuple[Any, str, tuple[str, str]]] = {
    # The kernel, the rule that takes it, and how its sides are copied.
    "fp32": (product([70, 96], [96, 80]), "cuda-matmul", ("depth", "words")),
    "fp32, odd": (product([33, 19], [19, 45]), "cuda-matmul", ("words", "words")),
    "fp16": (product([70, 96], [96, 80], "float16"), "cuda-tensor-matmul", ("depth", "own")),
    "fp16, odd": (
        product([33, 19], [19, 45], "float16"),
        "cuda-tensor-matmul",
        ("elements", "elements"),
    ),
    "bf16, batches": (
        product([3, 40, 64], [3, 64, 72], "bfloat16"),
        "cuda-tensor-matmul",
        ("depth", "own"),
    ),
    "fp32 convolution": (
        convolution([2, 7, 7, 8], [12, 3, 3, 8], padding=(1, 1)),
        "cuda-matmul",
        ("depth", "depth"),
    ),
    "fp16 convolution": (
        convolution([2, 7, 7, 16], [12, 3, 3, 16], "float16", padding=(1, 1)),
        "cuda-tensor-matmul",
        ("depth", "depth"),
    ),
    "fp16 convolution of 3 channels": (
        convolution([1, 11, 11, 3], [20, 3, 3, 3], "float16", padding=(1, 1), strides=(2, 2)),
        "cuda-tensor-matmul",
        ("elements", "elements"),
    ),
    "fp16 by 8 bytes": (
        product([33, 20], [20, 44], "float16"),
        "cuda-tensor-matmul",
        ("depth 8", "own 8"),
    ),
    "fp16 by 4 bytes": (
        product([70, 18], [18, 70], "float16"),
        "cuda-wgmma-matmul",
        ("depth 4", "own 4"),
    ),
    "fp16 convolution of 4 channels": (
        convolution([1, 11, 11, 4], [20, 3, 3, 4], "float16", padding=(1, 1), strides=(2, 2)),
        "cuda-tensor-matmul",
        ("depth 8", "depth 8"),
    ),
}
# Of the corpus, what `make test` has time for; the others are slow.
QUICK = {
    "bias and relu",
    "split",
    "transpose and add",
    "softmax across, prime",
    "layer norm of 768",
}
# For these TVM brings loop nests for GPUs that are bound to threads already.
OWN = {"cumulative sum", "sort"}
QUICK_PRODUCTS = [
    *("fp32, odd", "fp16", "bf16, batches", "fp16 convolution"),
    *("fp16 by 8 bytes", "fp16 by 4 bytes", "fp16 convolution of 4 channels"),
]


@needs_compiler
@pytest.mark.parametrize("name", sorted(QUICK))
def test_rules_keep_their_contract_at_their_defaults(name: str) -> None:
    device = gpu()
    for func in dict(ROWS)[name](device):
        taken = {name for name, rule in RULES.items() if check(rule, func, device, points=0)}
        assert "cuda-fallback" in taken


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, _ in ROWS if name not in OWN])
def test_every_rule_keeps_its_contract(name: str) -> None:
    device = gpu()
    for func in dict(ROWS)[name](device):
        taken = {name for name, rule in RULES.items() if check(rule, func, device, points=2)}
        assert "cuda-fallback" in taken


@needs_compiler
@pytest.mark.parametrize("name", QUICK_PRODUCTS)
def test_products_are_those_of_the_unscheduled_kernel(name: str) -> None:
    builder, rule, how = PRODUCTS[name]
    device = gpu()
    (func,) = builder(device)
    match: Any = RULES[rule].match(func, device)
    sides = (source(side, match.product) for side in (match.product.left, match.product.right))
    found = (f"{side.how} {side.piece}" if side.piece < CHUNK_BYTES else side.how for side in sides)
    assert tuple(found) == how
    assert check(RULES[rule], func, device, points=0)


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("arch", ["sm_75", "sm_80", "sm_90a"])
@pytest.mark.parametrize("name", PRODUCTS)
def test_products_at_many_points(name: str, arch: str) -> None:
    builder, rule, _ = PRODUCTS[name]
    device = gpu(arch)
    (func,) = builder(device)
    assert check(RULES[rule], func, device, points=6) or (arch, name[:4]) == ("sm_75", "bf16")


@needs_compiler
def test_tf32_rounds_operands_and_nothing_else() -> None:
    device = gpu("sm_80")
    (func,) = product([40, 64], [64, 48])(device)
    arrays = feed(func)
    marked = func.with_attr("hybridc.multiply", "tf32")
    rule = RULES["cuda-tensor-matmul"]
    match: Any = rule.match(marked, device)
    made = rule.schedule(match, rule.default(match, device)).mod["main"]
    got = run(made, arrays, device)[-1]
    exact = reference(func, arrays)[-1]
    # Two operands, each rounded by up to 2^-11, over sums of 64 products of either sign.
    close(got, exact, 1e-3, "tf32")
    assert not np.allclose(got, exact, rtol=1e-6)
    assert isinstance(rule.match(func, device), NotApplicable)


def test_every_rule_takes_some_kernel() -> None:
    device = gpu()
    builders = [builder for name, builder in ROWS if name in QUICK]
    builders += [builder for builder, _, _ in PRODUCTS.values()]
    builders += [product([64, 64], [64, 64], "float16"), product([1, 64], [64, 64])]
    builders += [dict(ROWS)["max pool, channels last"], ATTENTION["plain"], RECURRENT[0][1]]
    funcs = [func for builder in builders for func in builder(device)]
    for rule in RULES.values():
        assert any(not isinstance(rule.match(func, device), NotApplicable) for func in funcs)


def test_default_points_are_within_the_limits_of_every_gpu() -> None:
    large = [
        product([512, 768], [768, 3072], "float16"),
        product([512, 768], [768, 3072]),
        convolution([8, 56, 56, 64], [64, 3, 3, 64], padding=(1, 1)),
        operator(lambda x: op.nn.softmax(x, -1), *floats([64, 30_000])),
        operator(op.nn.relu, *floats([1 << 20])),
    ]
    for name in ("sm_75", "sm_86", "sm_90a", "sm_120"):
        device = gpu(name)
        for func in (func for builder in large for func in builder(device)):
            rule = next(
                rule
                for rule in pipeline.rules(device="cuda")
                if not isinstance(rule.match(func, device), NotApplicable)
            )
            match: Any = rule.match(func, device)
            made = rule.schedule(match, rule.default(match, device)).mod["main"]
            for launch in launches.of_kernel(made, device):
                assert launch.faults(device.device) == ()


@needs_compiler
def test_the_emulator_sees_a_missing_barrier(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the tests above rest on: without its barriers the product is wrong in some order."""
    nothing = tirx.Evaluate(tirx.const(0, "int32"))
    monkeypatch.setattr(tir, "barrier", lambda: nothing)
    device = gpu("sm_80")
    (func,) = product([40, 64], [64, 48])(device)
    with pytest.raises(AssertionError):
        check(RULES["cuda-matmul"], func, device, points=0)


@needs_compiler
def test_the_emulator_sees_arrays_that_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """As TVM's lowering cuts those without a store to their end, where nothing names the whole."""
    call = tir.call
    nothing = tirx.Evaluate(tirx.const(0, "int32"))
    monkeypatch.setattr(
        tir, "call", lambda name, *rest: nothing if name == "whole" else call(name, *rest)
    )
    device = gpu("sm_80")
    (func,) = product([40, 64], [64, 48], "float16")(device)
    with pytest.raises(AssertionError):
        check(RULES["cuda-tensor-matmul"], func, device, points=0)


@needs_compiler
def test_the_emulator_sees_a_copy_that_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    call = tir.call
    monkeypatch.setattr(
        tir,
        "call",
        lambda name, *rest: call("wait<9>" if name.startswith("wait<") else name, *rest),
    )
    device = gpu("sm_80")
    (func,) = product([40, 64], [64, 48])(device)
    with pytest.raises(AssertionError):
        check(RULES["cuda-matmul"], func, device, points=0)


def test_the_prelude_stands_in_code_that_calls_it_alone() -> None:
    device = gpu("sm_80")
    (func,) = product([40, 64], [64, 48])(device)
    for rule, there in (("cuda-matmul", True), ("cuda-fallback", False)):
        match: Any = RULES[rule].match(func, device)
        made = RULES[rule].schedule(match, RULES[rule].default(match, device)).mod["main"]
        text, _ = source_of(made, device)
        assert ("HYBRIDC_INLINE" in text) is there


# Whatever the call stores, no store of the kernel's own tells of it.
ONLY_CALLING = """
@T.prim_func(s_tir=True)
def main(x: T.Buffer((4,), "float32"), y: T.Buffer((4,), "float32")):
    T.evaluate(T.call_extern("int32", "fill", x.data, y.data))
"""


def test_a_kernel_is_bound_to_threads_unless_it_stores_nothing() -> None:
    x = te.placeholder((0, 3), name="x")
    nothing = te.create_prim_func([x, te.compute((0, 3), lambda i, j: x[i, j] + 1)])
    calling = from_source(ONLY_CALLING, {"T": script})
    found: Any = schedule
    assert found._faults(nothing, gpu()) == ""
    assert found._faults(calling, gpu()) == "no part of it is bound to threads"
