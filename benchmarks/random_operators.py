"""The operators of random models, and how each gets operands and attributes that fit."""

import random
from collections.abc import Callable

import numpy as np
from random_models import Array, Growing, finished

Grow = Callable[[Growing], bool]
_UNARY = (
    *("Abs", "Neg", "Relu", "Tanh", "Sigmoid", "Erf", "Exp", "Log", "Sqrt", "Floor", "Ceil"),
    *("Round", "Softplus", "Softsign", "LeakyRelu", "Elu", "Selu", "HardSigmoid", "HardSwish"),
    *("Gelu", "Sin", "Cos", "Sign", "Reciprocal", "Identity", "Mish", "ThresholdedRelu", "Atan"),
)
_BINARY = ("Add", "Sub", "Mul", "Div", "Max", "Min", "Add", "Mul", "Sub")
_REDUCTIONS = ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceL2", "ReduceLogSumExp")


def _floats(value: Array, rank: int = 0) -> bool:
    return bool(value.dtype == np.float32 and value.ndim >= rank)


def _images(value: Array) -> bool:
    return bool(value.dtype == np.float32 and value.ndim == 4)


def _unary(g: Growing) -> bool:
    x = g.pick(_floats)
    return x is not None and g.add(g.draw.choice(_UNARY), [x])


def _binary(g: Growing) -> bool:
    x = g.pick(_floats)
    if x is None:
        return False
    op, shape = g.draw.choice(_BINARY), g.values[x].shape
    others = [n for n, v in g.values.items() if _floats(v) and _fits(v.shape, shape)]
    if others and g.draw.random() < 0.6:
        y = g.draw.choice(others)
    else:
        kept = [size if g.draw.random() < 0.6 else 1 for size in shape]
        y = g.noise(*kept[g.draw.randint(0, len(kept)) :])
    return g.add(op, [x, y] if g.draw.random() < 0.5 else [y, x])


def _fits(small: tuple[int, ...], large: tuple[int, ...]) -> bool:
    pairs = zip(reversed(small), reversed(large), strict=False)
    return len(small) <= len(large) and all(a in (1, b) for a, b in pairs)


def _compare(g: Growing) -> bool:
    x = g.pick(_floats)
    if x is None:
        return False
    y = g.constant(np.float32(g.draw.choice([0.0, 0.5, -0.25])))
    name = f"v{len(g.values)}"
    if not g.add(g.draw.choice(["Greater", "Less"]), [x, y]):
        return False
    return g.add("Where", [name, x, g.noise(1)]) if g.draw.random() < 0.7 else True


def _reduce(g: Growing) -> bool:
    x = g.pick(lambda v: _floats(v, 1))
    if x is None:
        return False
    rank = g.values[x].ndim
    axes = sorted(g.draw.sample(range(rank), g.draw.randint(1, rank)))
    signed = [axis - rank if g.draw.random() < 0.5 else axis for axis in axes]
    op, keep = g.draw.choice(_REDUCTIONS), g.draw.randint(0, 1)
    return g.add(op, [x, g.constant(np.array(signed))], keepdims=keep)


def _softmax(g: Growing) -> bool:
    x = g.pick(lambda v: _floats(v, 1))
    if x is None:
        return False
    axis = g.draw.randrange(-g.values[x].ndim, g.values[x].ndim)
    return g.add(g.draw.choice(["Softmax", "LogSoftmax"]), [x], axis=axis)


def _arg(g: Growing) -> bool:
    x = g.pick(lambda v: _floats(v, 1))
    if x is None:
        return False
    axis = g.draw.randrange(g.values[x].ndim)
    op = g.draw.choice(["ArgMax", "ArgMin"])
    return g.add(op, [x], axis=axis, keepdims=g.draw.randint(0, 1))


def _transpose(g: Growing) -> bool:
    x = g.pick(lambda v: v.ndim >= 2)
    if x is None:
        return False
    axes = list(range(g.values[x].ndim))
    g.draw.shuffle(axes)
    return g.add("Transpose", [x], perm=axes)


def _reshape(g: Growing) -> bool:
    x = g.pick(lambda v: v.ndim >= 1)
    if x is None:
        return False
    size, shape = g.values[x].size, list[int]()
    while size > 1 and len(shape) < 3:
        divisors = [d for d in range(1, size + 1) if size % d == 0]
        shape.append(g.draw.choice(divisors))
        size //= shape[-1]
    shape.append(g.draw.choice([size, -1]))
    return g.add("Reshape", [x, g.constant(np.array(shape))])


def _slice(g: Growing) -> bool:
    x = g.pick(lambda v: v.ndim >= 1)
    if x is None:
        return False
    axis = g.draw.randrange(g.values[x].ndim)
    size = g.values[x].shape[axis]
    step = g.draw.choice([1, 1, 2, -1, -2])
    low, high = sorted(g.draw.choices(range(size + 1), k=2))
    ends = (low, high) if step > 0 else (high - 1, low - 1 - size if low == 0 else low - 1)
    parts = [np.array([value]) for value in (*ends, axis, step)]
    return g.add("Slice", [x, *map(g.constant, parts)])


def _pad(g: Growing) -> bool:
    x = g.pick(lambda v: _floats(v, 1))
    if x is None:
        return False
    widths = [g.draw.choice([0, 0, 1, 2]) for _ in range(2 * g.values[x].ndim)]
    wide = min(g.values[x].shape) > 2  # than what is reflected
    mode = g.draw.choice(["constant", "edge", "reflect" if wide else "edge"])
    return g.add("Pad", [x, g.constant(np.array(widths))], mode=mode)


def _concat(g: Growing) -> bool:
    x = g.pick(lambda v: _floats(v, 1))
    if x is None:
        return False
    same = [n for n, v in g.values.items() if _floats(v) and v.shape == g.values[x].shape]
    parts = g.draw.choices(same, k=g.draw.randint(2, 3))
    return g.add("Concat", parts, axis=g.draw.randrange(-g.values[x].ndim, g.values[x].ndim))


def _split(g: Growing) -> bool:
    x = g.pick(lambda v: _floats(v, 1) and v.shape[-1] >= 2)
    if x is None:
        return False
    last = g.values[x].shape[-1]
    first = g.draw.randrange(1, last)
    sizes = g.constant(np.array([first, last - first]))
    return g.add("Split", [x, sizes], 2, axis=-1)


def _gather(g: Growing) -> bool:
    x = g.pick(lambda v: v.ndim >= 1)
    if x is None:
        return False
    axis = g.draw.randrange(g.values[x].ndim)
    size = g.values[x].shape[axis]
    places = [g.draw.randrange(-size, size) for _ in range(g.draw.randint(1, 4))]
    return g.add("Gather", [x, g.constant(np.array(places))], axis=axis)


def _cast(g: Growing) -> bool:
    x = g.pick(lambda v: v.dtype.kind in "bi")
    return x is not None and g.add("Cast", [x], to=1)


def _matmul(g: Growing) -> bool:
    x = g.pick(lambda v: _floats(v, 2))
    if x is None:
        return False
    return g.add("MatMul", [x, g.noise(g.values[x].shape[-1], g.draw.choice([1, 3, 8, 17]))])


def _gemm(g: Growing) -> bool:
    x = g.pick(lambda v: _floats(v) and v.ndim == 2)
    if x is None:
        return False
    columns, flip = g.draw.choice([2, 5, 16]), g.draw.randint(0, 1)
    inner = g.values[x].shape[1]
    w = g.noise(columns, inner) if flip else g.noise(inner, columns)
    alpha = g.draw.choice([1.0, 0.5])
    return g.add("Gemm", [x, w, g.noise(columns)], transB=flip, alpha=alpha)


def _conv(g: Growing) -> bool:
    x = g.pick(_images)
    if x is None:
        return False
    channels = g.values[x].shape[1]
    group = channels if g.draw.random() < 0.3 else 1
    out = channels * g.draw.randint(1, 2) if group > 1 else g.draw.choice([1, 4, 7, 16])
    kernel = [g.draw.choice([1, 2, 3]) for _ in range(2)]
    operands = [x, g.noise(out, channels // group, *kernel)]
    operands += [g.noise(out)] if g.draw.random() < 0.5 else []
    return g.add(
        "Conv",
        operands,
        kernel_shape=kernel,
        group=group,
        strides=[g.draw.randint(1, 2) for _ in range(2)],
        pads=[g.draw.randint(0, 1) for _ in range(4)],
        dilations=[g.draw.choice([1, 1, 2])] * 2,
    )


def _pool(g: Growing) -> bool:
    x = g.pick(_images)
    if x is None:
        return False
    op = g.draw.choice(["MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"])
    if op.startswith("Global"):
        return g.add(op, [x])
    kernel = [g.draw.randint(1, 3) for _ in range(2)]
    strides = [g.draw.randint(1, 2) for _ in range(2)]
    pads = [g.draw.randint(0, min(kernel) - 1) for _ in range(4)]
    return g.add(op, [x], kernel_shape=kernel, strides=strides, pads=pads)


def _norm(g: Growing) -> bool:
    x = g.pick(lambda v: _floats(v, 3))
    if x is None:
        return False
    shape, kind = g.values[x].shape, g.draw.randrange(3)
    if kind == 0:
        return g.add("LayerNormalization", [x, g.noise(shape[-1]), g.noise(shape[-1])])
    channels = [g.noise(shape[1]), g.noise(shape[1])]
    if kind == 1:
        return min(shape[2:]) > 1 and g.add("InstanceNormalization", [x, *channels])
    variance = g.constant(np.abs(g.rng.standard_normal(shape[1])).astype(np.float32) + 0.5)
    return g.add("BatchNormalization", [x, *channels, g.noise(shape[1]), variance])


def _clip(g: Growing) -> bool:
    x = g.pick(_floats)
    ends = [g.constant(np.float32(value)) for value in (-0.5, 0.75)]
    return x is not None and g.add("Clip", [x, *ends])


GROW: tuple[Grow, ...] = (
    *(_unary, _unary, _unary, _binary, _binary, _binary, _compare, _reduce, _softmax, _arg),
    *(_transpose, _reshape, _slice, _pad, _concat, _split, _gather, _cast, _matmul, _gemm),
    *(_conv, _conv, _pool, _norm, _clip),
)


def model(seed: int, nodes: int = 10) -> tuple[object, dict[str, Array]]:
    """A model of about so many nodes, and inputs for it; the same for the same seed."""
    grown = Growing(random.Random(seed), np.random.default_rng(seed))
    for index in range(grown.draw.randint(1, 2)):
        rank = grown.draw.choice([1, 2, 3, 4, 4])
        shape = [grown.draw.choice([1, 2, 3, 4, 5, 7, 8, 16]) for _ in range(rank)]
        value = grown.rng.standard_normal(shape).astype(np.float32)
        grown.feed[f"x{index}"] = grown.values[f"v_x{index}"] = value
        grown.values[f"x{index}"] = grown.values.pop(f"v_x{index}")
    tries = 0
    while len(grown.nodes) < nodes and tries < 20 * nodes:
        tries += 1
        grown.draw.choice(GROW)(grown)
    return finished(grown, f"random-{seed}"), grown.feed
