"""Attention on a GPU: one kernel, run thread by thread on the CPU, against TVM's own code."""

from typing import Any

import numpy as np
import pytest
from cuda_emulator import ORDERS, needs_compiler, run, source_of
from cuda_kernels import check, close, feed, gpu, reference, sample
from kernel_builders import LOWERED, Builder, op, operator
from tvm import relax

from hybridc.compiler import pipeline, plugin
from hybridc.compiler.cuda import launches
from hybridc.compiler.interfaces import NotApplicable
from hybridc.schedules.cuda.attention_cut import Cut

RULES = {plugin.name_of(type(rule)): rule for rule in pipeline.rules(device="cuda")}
RULE = RULES["cuda-attention"]


def attention(
    heads: tuple[int, int],
    sizes: tuple[int, int, int, int],
    mask: Any = None,
    dtype: str = "float16",
    **how: Any,
) -> Builder:
    """Attention of heads of queries and of keys; sizes are rows, columns, depth, features.

    `mask` is a shape, `"causal"` or nothing; `keys` tells how keys lie, and `after` what is behind.
    """
    (many, few), (rows, columns, depth, features) = heads, sizes
    causal = np.triu(np.full((rows, columns), -np.inf, "float32"), columns - rows + 1)

    lowered = {"float32": LOWERED, "tf32": f"{LOWERED},tensor-float"}
    narrow = lowered.get(dtype, f"mixed-precision{{dtype={dtype}}},{LOWERED}")

    def build(q: Any, k: Any, v: Any, *masks: Any) -> Any:
        k = k if how.get("transposed") else op.permute_dims(k, [0, 2, 3, 1])
        q, v = (op.permute_dims(x, [0, 2, 1, 3]) for x in (q, v))
        if few != many:
            k = _repeated(k, (2, few, depth, columns), many)
            v = _repeated(v, (2, few, columns, features), many)
        scores = op.multiply(op.matmul(q, k), relax.const(depth**-0.5, "float32"))
        if masks or mask == "causal":
            scores = op.add(scores, masks[0] if masks else relax.const(causal))
        made = op.matmul(op.nn.softmax(scores, -1), v)
        made = op.permute_dims(made, [0, 2, 1, 3])
        made = op.add(made, relax.const(0.5, "float32"))
        return made if dtype in lowered else op.astype(made, dtype)

    shapes = [(2, rows, many, depth), (2, columns, few, depth), (2, columns, few, features)]
    if how.get("transposed"):
        shapes[1] = (2, few, depth, columns)
    if isinstance(mask, tuple):
        shapes.append(mask)

    def kernels(target: Any) -> Any:
        made = operator(
            build, *((shape, "float32") for shape in shapes), passes=f"fuse-attention,{narrow}"
        )(target)
        return [func for func in made if not isinstance(RULE.match(func, target), NotApplicable)]

    return kernels


def _repeated(x: Any, shape: tuple[int, int, int, int], many: int) -> Any:
    """Each head as often as there are queries for it."""
    batch, few, *rest = shape
    wide = op.broadcast_to(op.expand_dims(x, 2), (batch, few, many // few, *rest))
    return op.reshape(wide, (batch, many, *rest))


CASES: dict[str, Builder] = {
    "plain": attention((2, 2), (70, 90, 32, 32)),
    "wide heads": attention((1, 1), (33, 65, 128, 80)),
    "odd heads": attention((1, 1), (20, 30, 20, 12)),
    "keys transposed": attention((2, 2), (40, 72, 64, 64), transposed=True),
    "causal": attention((2, 2), (150, 150, 32, 32), "causal"),
    "causal with a past": attention((1, 1), (20, 90, 32, 32), "causal"),
    "mask of rows": attention((2, 2), (40, 70, 32, 32), (2, 1, 40, 70)),
    "mask of columns": attention((2, 2), (40, 70, 32, 32), (2, 1, 1, 70), "bfloat16"),
    "one query": attention((2, 2), (1, 300, 64, 64)),
    "grouped heads": attention((4, 2), (5, 140, 32, 32)),
    "one head of keys": attention((4, 1), (3, 70, 32, 32)),
    "widest heads": attention((1, 1), (20, 70, 256, 256)),
    "tf32": attention((2, 2), (40, 70, 40, 32), "causal", "tf32"),
    "tf32, one query": attention((2, 2), (1, 300, 64, 64), None, "tf32"),
    "tf32, widest heads": attention((1, 1), (20, 40, 256, 200), (1, 1, 20, 40), "tf32"),
    "fp32": attention((2, 2), (40, 70, 40, 32), "causal", "float32"),
    "fp32, one query": attention((2, 2), (1, 300, 64, 64), None, "float32"),
    "fp32, widest heads": attention((1, 1), (20, 40, 200, 256), (1, 1, 20, 40), "float32"),
    "fp32, keys transposed": attention((1, 1), (33, 72, 64, 80), None, "float32", transposed=True),
}
QUICK = ["plain", "causal with a past", "one query", "tf32", "fp32"]
# Points that the defaults of small kernels do not reach: all knobs in their order.
KNOBS = ("rows", "warp_rows", "columns", "key_warps", "splits", "stages", "warpgroups")
POINTS = [
    dict(zip(KNOBS, values, strict=True))
    for values in (
        (128, 32, 128, 1, 1, 3, 0),
        (32, 16, 64, 2, 4, 1, 0),
        (16, 16, 128, 4, 32, 2, 0),
        (192, 16, 128, 1, 1, 3, 1),
    )
]
TOGETHER: dict[str, int] = dict(zip(KNOBS, (64, 16, 64, 1, 1, 3, 1), strict=True))
GROUPS: dict[str, Builder] = {
    "causal": attention((1, 1), (65, 200, 32, 48), "causal"),
    "keys transposed": attention((1, 1), (10, 136, 80, 32), None, "bfloat16", transposed=True),
}


@needs_compiler
@pytest.mark.parametrize("name", QUICK)
def test_attention_is_that_of_the_unscheduled_kernel(name: str) -> None:
    device = gpu()
    (func,) = CASES[name](device)
    assert check(RULE, func, device, points=0, share=share_of(name))


def share_of(name: str) -> float:
    """How far a result may be off, of its largest: weights are of 16 bits, or of 11, or whole."""
    return 1e-5 if name.startswith("fp32") else 2e-3


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("arch", ["sm_75", "sm_80", "sm_90a"])
@pytest.mark.parametrize("name", CASES)
def test_attention_at_many_points(name: str, arch: str) -> None:
    device = gpu(arch)
    (func,) = CASES[name](device) or (None,)
    if func is None:  # no bfloat16 and no TF32 there, and no room for the widest
        assert arch == "sm_75"
        assert name in {"mask of columns", "widest heads"} or "tf32" in name or "fp32, w" in name
        return
    share = share_of(name)
    assert check(RULE, func, device, points=1, share=share)
    match: Any = RULE.match(func, device)
    for point in POINTS:
        at(match, point, func, device, share)


def at(match: Any, point: Any, func: Any, device: Any, share: float, orders: Any = ORDERS) -> None:
    """The kernel at a point computes what the unscheduled one does."""
    arrays = feed(func)
    canonical = RULE.canonical(match, point)
    assert RULE.canonical(match, canonical) == canonical
    made = RULE.schedule(match, canonical).mod["main"]
    for order in orders:
        for got, right in zip(
            run(made, arrays, device, order), reference(func, arrays), strict=True
        ):
            close(got, right, share, f"{canonical}, order {order}")


@needs_compiler
@pytest.mark.parametrize("name", GROUPS)
def test_warpgroups_meet_values_behind_the_keys(name: str) -> None:
    """Products are under way until they are waited for; the emulator does them as late as that."""
    device = gpu("sm_90a")
    (func,) = GROUPS[name](device)
    match: Any = RULE.match(func, device)
    assert RULE.canonical(match, TOGETHER)["warpgroups"]
    at(match, TOGETHER, func, device, 2e-3, orders=(1,))


@needs_compiler
def test_rows_that_are_masked_wholly_give_what_their_model_says() -> None:
    """A row without a column is no number; one whose first block of columns is masked is one."""
    device = gpu()
    (func,) = attention((1, 1), (3, 140, 32, 32), (1, 1, 3, 140))(device)
    arrays = feed(func)
    arrays[3][0, 0, 0] = -np.inf
    arrays[3][0, 0, 1, :130] = -np.inf
    match: Any = RULE.match(func, device)
    for splits in (1, 2):
        point = {**RULE.default(match, device), "splits": splits}
        (*_, got) = run(RULE.schedule(match, point).mod["main"], arrays, device)
        (*_, right) = reference(func, arrays)
        rows = np.asarray(got, "float32")
        assert np.isnan(rows[:, 0]).all()
        assert not np.isnan(rows[:, 1:]).any()
        np.testing.assert_allclose(rows[:, 1:], np.asarray(right, "float32")[:, 1:], atol=2e-2)


def test_default_points_follow_from_shapes() -> None:
    """Large attention fills blocks with rows; one query divides its keys among blocks."""
    device = gpu("nvidia/h100")
    large = _default(attention((12, 12), (1024, 1024, 64, 64)), device)
    assert large["rows"] >= 64
    assert large["splits"] == 1
    one = _default(attention((8, 8), (1, 16384, 128, 128)), device)
    assert one["rows"] == 16
    assert one["splits"] > 1
    assert one["key_warps"] > 1


def _default(builder: Builder, device: Any) -> Any:
    (func,) = builder(device)
    match: Any = RULE.match(func, device)
    point = RULE.default(match, device)
    for launch in launches.of_kernel(RULE.schedule(match, point).mod["main"], device):
        assert launch.faults(device.device) == ()
    return point


def test_causal_blocks_behind_the_diagonal_are_not_met() -> None:
    """Steps are counted by rows where the mask is known to be causal."""
    device = gpu()
    (func,) = CASES["causal"](device)
    match: Any = RULE.match(func, device)
    assert match.first == 1
    assert "min" in codegen_of(match, device)


def codegen_of(match: Any, device: Any) -> str:
    """The CUDA source at the default point."""
    made = RULE.schedule(match, RULE.default(match, device)).mod["main"]
    return source_of(made, device)[0]


def test_wider_heads_are_left_alone() -> None:
    assert attention((1, 1), (32, 32, 264, 32))(gpu()) == []
    assert attention((1, 1), (32, 32, 256, 32))(gpu("sm_75")) == []


@pytest.mark.parametrize("dtype", ["float16", "tf32", "float32"])
def test_no_point_is_beyond_what_a_block_may_have(dtype: str) -> None:
    """Whatever is asked for, heads as wide as are taken fit, and CUDA cores get whole tiles."""
    device = gpu("sm_86")
    (func,) = attention((1, 1), (64, 128, 256, 256), None, dtype)(device)
    match: Any = RULE.match(func, device)
    space = RULE.knobs(match)
    for point in sample(space, RULE.default(match, device), 200):
        cut = Cut.of(match, RULE.canonical(match, point))
        assert cut.shared <= device.device.shared_per_block
        assert cut.registers <= 255
        assert cut.warp_columns >= (16 if cut.tensor else 32)
