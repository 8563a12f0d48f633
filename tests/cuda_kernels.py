"""Kernels for the CUDA rules, as they reach them, and the check that all of these rules pass."""

import random
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
import tvm
from cuda_emulator import ORDERS, run
from kernel_builders import Builder, op, operator

from hybridc.compiler import target
from hybridc.compiler.interfaces import NotApplicable, Point, PrimFunc, ScheduleRule, Space
from hybridc.compiler.model import Array
from hybridc.compiler.target import Target

NHWC: Any = {"data_layout": "NHWC", "kernel_layout": "OHWI"}
# Points beside the default; each is C++ for the emulator to compile, which takes a second.
AT_POINTS = pytest.mark.parametrize("points", [0, pytest.param(2, marks=pytest.mark.slow)])


def gpu(name: str = "sm_90a") -> Target:
    """A GPU that nobody has to have."""
    return target.parse(name, threads=1)


def halves(*shapes: Any, dtype: str = "float16") -> list[Any]:
    """Operands of 16 bits."""
    return [(shape, dtype) for shape in shapes]


def product(left: Any, right: Any, dtype: str = "float32") -> Builder:
    """A matrix product with sums in float32."""

    def build(x: Any, y: Any) -> Any:
        return op.matmul(x, y, out_dtype="float32")

    return operator(build, (left, dtype), (right, dtype))


def convolution(image: Any, weight: Any, dtype: str = "float32", **how: Any) -> Builder:
    """A convolution, channels last, with a bias and a ReLU behind it."""

    def build(x: Any, w: Any, b: Any) -> Any:
        made = op.nn.conv2d(x, w, out_dtype="float32", **NHWC, **how)
        return op.nn.relu(op.add(made, b))

    return operator(build, (image, dtype), (weight, dtype), ((weight[0],), "float32"))


def feed(func: PrimFunc, seed: int = 0) -> list[Array]:
    """Random numbers for each parameter; integers are small enough to index any axis."""
    draw = np.random.default_rng(seed)
    arrays: list[Array] = []
    for param in func.params:
        shape, dtype = tuple(int(extent) for extent in param.shape), str(param.dtype)
        if "float" in dtype:
            arrays.append(np.asarray(draw.standard_normal(shape), dtype))
        elif dtype in ("int8", "uint8"):
            kind = np.iinfo(dtype)
            arrays.append(draw.integers(kind.min, kind.max + 1, shape).astype(dtype))
        else:
            arrays.append(np.asarray(draw.integers(0, 2, shape), dtype))
    return arrays


def reference(func: PrimFunc, arrays: Iterable[Array]) -> list[Array]:
    """What the unscheduled function computes, by TVM's own lowering for the CPU."""
    from hybridc.compiler.kernels import bfloat16_lowering
    from hybridc.compiler.runtime.tensors import to_numpy, to_tensor

    held = [np.array(array) for array in arrays]
    module = tvm.IRModule({"main": func.with_attr("global_symbol", "main")})
    here = target.parse("cpu")
    module = bfloat16_lowering.lower(module, here, bfloat16_lowering.takes_bits)
    tensors = [to_tensor(array) for array in held]
    # It runs once, which takes less time than LLVM's later levels of optimisation.
    tvm.compile(module, target=tvm.target.Target({"kind": "llvm", "opt-level": 1}))["main"](
        *tensors
    )
    types = [np.dtype(str(param.dtype)) for param in func.params]
    return [to_numpy(tensor, dtype) for tensor, dtype in zip(tensors, types, strict=True)]


def sample(space: Space, default: Point, count: int, seed: int = 0) -> list[Point]:
    """The default, then points drawn from the space."""
    draw = random.Random(seed)
    drawn = [{knob: draw.choice(values) for knob, values in space.items()} for _ in range(count)]
    return [dict(default), *drawn]


def check(
    rule: ScheduleRule, func: PrimFunc, device: Target, points: int = 1, share: float = 1e-5
) -> bool:
    """Hold a rule to its contract on one kernel; False where it refuses the kernel.

    Errors may be `share` of the largest element, as sums in another order differ.
    """
    match: Any = rule.match(func, device)
    if isinstance(match, NotApplicable):
        assert match.reason
        assert (
            match.reason[0].islower() or match.reason.startswith("sm_") or match.reason[0].isdigit()
        )
        return False
    space, default = rule.knobs(match), rule.default(match, device)
    assert set(default) == set(space)
    assert all(default[knob] in values for knob, values in space.items()), (default, space)
    arrays = feed(func)
    wanted = reference(func, arrays)
    for point in sample(space, default, points):
        canonical = rule.canonical(match, point)
        assert rule.canonical(match, canonical) == canonical
        assert all(canonical[knob] in values for knob, values in space.items()), canonical
        scheduled = rule.schedule(match, point).mod["main"]
        for order in ORDERS:
            for got, right in zip(run(scheduled, arrays, device, order), wanted, strict=True):
                close(got, right, share, f"{point}, threads in order {order}")
    return True


def close(got: Array, right: Array, share: float, what: str) -> None:
    """Two arrays agree to a share of the largest element."""
    wide, true = np.asarray(got, np.float64), np.asarray(right, np.float64)
    if got.dtype.kind in "biu":
        np.testing.assert_array_equal(wide, true, err_msg=what)
        return
    steps = {"float16": 2e-3, "bfloat16": 1.6e-2}.get(got.dtype.name, 0.0)
    limit = (share + steps) * max(1.0, float(np.abs(true[np.isfinite(true)]).max(initial=0)))
    np.testing.assert_allclose(wide, true, rtol=steps, atol=limit, err_msg=what)
