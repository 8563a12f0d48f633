"""What every schedule rule keeps, over a corpus of kernels; a new rule inherits it by existing.

For each kernel a rule either refuses, with a reason, or its default point lies in its space and
it computes the numbers of the unscheduled function, at the default and at other points.

A rule in a file of its own is tested by `pytest tests/test_rule_conformance.py --plugin FILE`.
"""

import random
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import plugged
import pytest
import tvm
from kernel_builders import Builder
from kernel_corpus import KERNELS

from hybridc.compiler import pipeline, plugin, target
from hybridc.compiler.building.build import compile_kernel
from hybridc.compiler.hardware.host import cpu_features
from hybridc.compiler.interfaces import Context, NotApplicable, Point, PrimFunc, ScheduleRule, Space
from hybridc.compiler.model import Array
from hybridc.compiler.runtime.tensors import to_numpy, to_tensor

BY_NAME = {plugin.name_of(type(rule)): rule for rule in pipeline.rules(plugged.FILES)}
RULES = [BY_NAME[name] for name in plugged.under_test(BY_NAME)]
# Sizes of the corpus are fixed: test_strips.py has kernels for the other rules.
FIXED = [rule for rule in RULES if plugin.name_of(type(rule)) not in ("matmul", "open-loops")]
CPUS = ("avx512", "avx2")
# What has AVX512-BF16 besides; it differs in kernels of bfloat16 alone.
BF16_CPU = '{"kind": "llvm", "mcpu": "cooperlake"}'
OTHER_POINTS = 2
# Points of each kernel beside the default: where time is short, and where it is not.
FEW, MANY = 1, 4
AT_POINTS = pytest.mark.parametrize("points", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
CORPUS = [pytest.param(builder, id=name.replace(" ", "-")) for name, builder in KERNELS]
# Of this host's two widths of vectors, the narrower one is left to the slow tests but for some.
SPARED = "avx512f" in cpu_features() and not plugged.FILES
SOME = 3

pytestmark = pytest.mark.filterwarnings("ignore")


def runnable(cpu: str) -> target.Target:
    """The target, or a skip where this host lacks its instructions."""
    wanted, here = target.parse(cpu, threads=2), target.parse("cpu")
    if not wanted.features <= here.features:
        pytest.skip(f"this host has no {cpu}")
    return wanted


def feed(func: PrimFunc) -> list[Array]:
    """Random numbers for each parameter, small enough to index any axis where they are integers."""
    random_numbers = np.random.default_rng(0)
    arrays: list[Array] = []
    for param in func.params:
        shape = tuple(int(extent) for extent in param.shape)
        dtype = str(param.dtype)
        if "float" in dtype:
            arrays.append(np.asarray(random_numbers.standard_normal(shape), dtype))
        elif dtype in ("int8", "uint8"):  # no index, but a quantised tensor
            limits = np.iinfo(dtype)
            arrays.append(random_numbers.integers(limits.min, limits.max, shape, dtype, True))
        else:
            arrays.append(np.asarray(random_numbers.integers(0, 2, shape), dtype))
    return arrays


def execute(func: PrimFunc, cpu: target.Target) -> list[Array]:
    """Run a kernel; parameters that it does not write come back as they went in."""
    module = tvm.IRModule({"main": func})
    module = pipeline.run(pipeline.parse("lower-bfloat16"), module, Context(cpu))
    arguments = [to_tensor(array) for array in feed(func)]
    compile_kernel(module["main"], cpu)["main"](*arguments)
    types = [str(param.dtype) for param in func.params]
    return [
        to_numpy(argument, np.dtype(dtype))
        for argument, dtype in zip(arguments, types, strict=True)
    ]


@cache
def unscheduled(func: PrimFunc, cpu: target.Target) -> list[Array]:
    """The right answer, computed once for all rules that take the kernel."""
    return execute(func, cpu)


@cache
def kernels(builder: Builder, cpu: target.Target) -> list[PrimFunc]:
    return builder(cpu)


def sample(space: Space, default: Point, count: int) -> list[Point]:
    """The default, then points drawn from the space."""
    draw = random.Random(0)
    drawn = [{knob: draw.choice(values) for knob, values in space.items()} for _ in range(count)]
    return [dict(default), *drawn]


def _standard(array: Array) -> Array:
    """An array of a type that numpy has itself."""
    return array if array.dtype.kind in "biuf" else array.astype(np.float32)


def check(rule: ScheduleRule, func: PrimFunc, cpu: target.Target, points: int = FEW) -> bool:
    """Hold a rule to its contract on one kernel; False if it refuses the kernel."""
    match: Any = rule.match(func, cpu)
    if isinstance(match, NotApplicable):
        assert match.reason
        assert match.reason[0].islower()
        return False
    space, default = rule.knobs(match), rule.default(match, cpu)
    assert set(default) == set(space)
    assert all(default[knob] in values for knob, values in space.items()), (default, space)
    wanted = unscheduled(func, cpu)
    for point in sample(space, default, points):
        scheduled = rule.schedule(match, point).mod["main"]
        for computed, expected in zip(execute(scheduled, cpu), wanted, strict=True):
            relative = 1e-2 if computed.dtype in ("float16", "bfloat16") else 1e-4
            got, right = _standard(computed), _standard(expected)
            # Sums in another order differ by a share of their terms, not of what cancels out.
            # Of bfloat16, what a kernel keeps to itself may be rounded or not.
            share = 0.2 if computed.dtype == "bfloat16" else 1e-2
            absolute = share * relative * max(10.0, float(np.abs(right).max(initial=0)))
            if computed.dtype == "uint8":  # a fused multiply-add may take a tie to the other side
                absolute = 1.0
            np.testing.assert_allclose(got, right, rtol=relative, atol=absolute, err_msg=str(point))
    return True


def test_priorities_are_unique() -> None:
    priorities = [rule.priority for rule in BY_NAME.values()]
    assert len(set(priorities)) == len(priorities)


def cases() -> Iterator[Any]:
    """Each kernel on each CPU."""
    for place, (name, builder) in enumerate(KERNELS):
        for cpu in CPUS:
            slow = SPARED and cpu == "avx2" and place % SOME
            marks = [pytest.mark.slow] if slow else []
            yield pytest.param(builder, cpu, marks=marks, id=f"{name.replace(' ', '-')}-{cpu}")


@AT_POINTS
@pytest.mark.parametrize(("builder", "cpu"), [*cases()])
def test_every_rule_keeps_its_contract(builder: Builder, cpu: str, points: int) -> None:
    wanted = runnable(cpu)
    for func in kernels(builder, wanted):
        taken: set[str] = set()
        for rule in sorted(RULES, key=lambda rule: -rule.priority):  # the fallback comes last
            name = plugin.name_of(type(rule))
            # Kernels that have a rule reach the fallback only if that rule fails.
            # On AVX2 ours are tried at other points in slow tests, as on AVX-512 in these.
            few = (SPARED and cpu == "avx2") or (name == "fallback" and taken)
            spared = points == FEW and few
            if check(rule, func, wanted, 0 if spared else points):
                taken.add(name)
        assert plugged.FILES or "fallback" in taken


@AT_POINTS
@pytest.mark.parametrize("builder", [p for p in CORPUS if str(p.id).startswith("bf16")])
def test_every_rule_keeps_its_contract_with_bf16_instructions(
    builder: Builder, points: int
) -> None:
    test_every_rule_keeps_its_contract(builder, BF16_CPU, points)


@pytest.mark.parametrize("rule", FIXED, ids=lambda rule: plugin.name_of(type(rule)))
def test_every_rule_takes_some_kernel_of_the_corpus(rule: ScheduleRule) -> None:
    cpu = target.parse("avx2", threads=2)
    funcs = [func for _, builder in KERNELS for func in kernels(builder, cpu)]
    assert any(not isinstance(rule.match(func, cpu), NotApplicable) for func in funcs)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: plugin.name_of(type(rule)))
def test_points_of_one_canonical_form_have_one_schedule(rule: ScheduleRule) -> None:
    cpu = target.parse("avx512", threads=2)
    for _, builder in KERNELS:
        for func in kernels(builder, cpu):
            match: Any = rule.match(func, cpu)
            if isinstance(match, NotApplicable):
                continue
            space, default = rule.knobs(match), rule.default(match, cpu)
            for point in sample(space, default, OTHER_POINTS):
                canonical = rule.canonical(match, point)
                assert rule.canonical(match, canonical) == canonical
                assert all(canonical[knob] in values for knob, values in space.items()), point
                assert set(canonical) == set(space)
                estimate = rule.estimate(match, point)
                assert estimate == rule.estimate(match, canonical)
                assert estimate is None or 0 < estimate < float("inf")
                if canonical != point:
                    made = rule.schedule(match, canonical).mod
                    tvm.ir.assert_structural_equal(rule.schedule(match, point).mod, made)


@pytest.mark.parametrize("rule", FIXED, ids=lambda rule: plugin.name_of(type(rule)))
def test_no_rule_measures_or_remembers(rule: ScheduleRule) -> None:
    """The same kernel gets the same point and the same schedule, whatever came before."""
    cpu = target.parse("avx2", threads=2)
    for _, builder in KERNELS:
        for func in kernels(builder, cpu):
            match: Any = rule.match(func, cpu)
            if isinstance(match, NotApplicable):
                continue
            point = rule.default(match, cpu)
            first = rule.schedule(match, point).mod
            again: Any = rule.match(func, cpu)
            assert rule.default(again, cpu) == point
            tvm.ir.assert_structural_equal(rule.schedule(again, point).mod, first)
            return
    pytest.fail("no kernel of the corpus is taken")
