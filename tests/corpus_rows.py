"""Kernels that hold no product: elementwise, copies, reductions, rows, windows, scans."""

from collections.abc import Callable
from typing import Any

from kernel_builders import FAST, Builder, bytes_of, floats, op, operator
from tvm import relax


def _zero_nans(x: Any) -> Any:
    return op.where(op.isnan(x), relax.const(0.0, "float32"), x)


def _quantize(x: Any, scale: Any, zero: Any) -> Any:
    """By a scale and a zero point that are known only as the model runs."""
    steps = op.add(op.round(op.divide(x, scale)), op.astype(zero, "float32"))
    return op.astype(op.clip(steps, 0.0, 255.0), "uint8")


def _permute(*axes: int) -> Callable[..., Any]:
    return lambda x: op.permute_dims(x, list(axes))


def _shuffle(x: Any) -> Any:
    parted = op.permute_dims(op.reshape(x, [1, 3, 5, 2, 11]), [0, 1, 2, 4, 3])
    return op.reshape(parted, [1, 3, 5, 22])


def _mirrored(x: Any) -> Any:
    """Padded by reflection, with arithmetic before and behind it."""
    rows, columns = [1, 0, 1, 2, 1], [3, 2, 1, *range(41), 39, 38]
    taken = op.take(op.negative(x), relax.const(rows, "int64"), axis=1)
    return op.exp(op.take(taken, relax.const(columns, "int64"), axis=2))


def _resize(method: str) -> Callable[..., Any]:
    size = relax.ShapeExpr([11, 14])
    return lambda x: op.image.resize2d(x, size, layout="NHWC", method=method)


def _adaptive_pool(x: Any) -> Any:
    return op.nn.adaptive_avg_pool2d(x, (1, 2), layout="NHWC")


def _norm(*axes: int) -> Callable[..., Any]:
    return lambda x, scale, shift: op.nn.layer_norm(x, scale, shift, list(axes))


def _gelu_norm(x: Any, scale: Any, shift: Any) -> Any:
    return op.nn.gelu(op.nn.layer_norm(x, scale, shift, [-1]))


def _response_norm(row: Any, image: Any) -> Any:
    return op.multiply(image, op.divide(row, op.mean(row, [-1], keepdims=True)))


def _rms_norm(x: Any, scale: Any) -> Any:
    return op.nn.rms_norm(x, scale, [-1])


def max_pool(layout: str, window: int, stride: int, pad: int) -> Callable[..., Any]:
    return lambda x: op.nn.relu(
        op.nn.max_pool2d(x, (window, window), (stride, stride), (pad, pad), layout=layout)
    )


def _average_pool(layout: str, window: int, stride: int, pad: int) -> Callable[..., Any]:
    return lambda x: op.nn.avg_pool2d(
        x, (window, window), (stride, stride), (pad, pad), layout=layout
    )


ROWS: list[tuple[str, Builder]] = [
    # Elementwise.
    ("relu of one element", operator(op.nn.relu, *floats([1]))),
    ("relu without axes", operator(op.nn.relu, *floats([]))),
    ("bias and relu", operator(lambda x, b: op.nn.relu(op.add(x, b)), *floats([5, 17, 33], [33]))),
    ("add, prime extents", operator(op.add, *floats([37, 29, 17], [37, 29, 17]))),
    ("add, long", operator(op.add, *floats([64, 56, 56], [64, 56, 56]))),
    ("broadcast both ways", operator(op.add, *floats([7, 1, 13], [1, 5, 1]))),
    ("broadcast rows", operator(op.multiply, *floats([1, 128, 64], [1, 128, 1]))),
    ("gelu", operator(op.nn.gelu, *floats([3, 197]))),
    (
        "silu, in fast math",
        operator(op.nn.silu, *floats([16, 64]), passes=FAST),
    ),
    (
        "gelu, in fast math",
        operator(op.nn.gelu, *floats([3, 197]), passes=FAST),
    ),
    ("compare", operator(op.greater, *floats([40, 30], [40, 30]))),
    (
        "where",
        operator(op.where, ([9, 33], "bool"), *floats([9, 33], [9, 33])),
    ),
    ("cast to int64", operator(lambda x: op.astype(x, "int64"), *floats([3, 35]))),
    ("cast from bool", operator(lambda x: op.astype(x, "float32"), ([40, 31], "bool"))),
    ("uint8 arithmetic", operator(op.add, ([7, 65], "uint8"), ([7, 65], "uint8"))),
    ("int64 arithmetic", operator(op.multiply, ([7, 19], "int64"), ([7, 19], "int64"))),
    ("float64 exp", operator(op.exp, ([5, 9], "float64"))),
    ("float16 add", operator(op.add, ([5, 33], "float16"), ([5, 33], "float16"))),
    ("scale of one number", operator(op.multiply, *floats([7, 65], []))),
    ("quantise by one number", operator(_quantize, *floats([7, 65], []), ([], "uint8"))),
    ("one number", operator(lambda x, y: op.exp(op.subtract(x, y)), *floats([], []))),
    # Copies.
    (
        "concat, whole vectors",
        operator(lambda x, y: op.concat([x, y], 1), *floats([4, 32], [4, 16])),
    ),
    ("concat, odd", operator(lambda x, y: op.concat([x, y], 1), *floats([4, 5], [4, 3]))),
    (
        "concat of long rows, odd",
        operator(lambda x, y: op.concat([x, y], 1), *floats([6, 37], [6, 50])),
    ),
    (
        "concat of odd numbers of bytes",
        operator(lambda x, y: op.concat([x, y], 0), ([301], "uint8"), ([90], "uint8")),
    ),
    ("pad by reflection", operator(_mirrored, *floats([2, 3, 41]))),
    ("concat of rows", operator(lambda x, y: op.concat([x, y], 0), *floats([4, 13], [3, 13]))),
    ("split", operator(lambda x: op.split(x, 3, 1), *floats([40, 30]))),
    ("slice", operator(lambda x: op.strided_slice(x, [1], [1], [16], [2]), *floats([4, 17]))),
    (
        "pad, channels last",
        operator(lambda x: op.nn.pad(x, (0, 0, 1, 2, 0, 0)), *floats([2, 5, 16])),
    ),
    ("pad of the last axis", operator(lambda x: op.nn.pad(x, (0, 0, 16, 3)), *floats([4, 32]))),
    ("take rows", operator(lambda x, i: op.take(x, i, 0), *floats([40, 10]), ([7], "int64"))),
    (
        "gather elements",
        operator(lambda x, i: op.gather_elements(x, i, 1), *floats([4, 9]), ([4, 7], "int64")),
    ),
    (
        "bytes of three channels",
        operator(lambda x: op.astype(x, "float32"), *bytes_of([2, 5, 7, 3])),
    ),
    ("odd planes and a number for each", operator(op.add, *floats([4, 3, 5, 7], [4, 1, 1, 1]))),
    ("odd planes and one of them", operator(op.add, *floats([4, 3, 5, 7], [3, 5, 7]))),
    ("NaN to zero", operator(_zero_nans, *floats([7, 21]))),
    ("transpose of few channels", operator(_permute(0, 2, 3, 1), *floats([1, 3, 9, 9]))),
    ("transpose to few channels", operator(_permute(0, 3, 1, 2), *floats([2, 5, 7, 3]))),
    ("channel shuffle", operator(_shuffle, *floats([1, 3, 5, 22]))),
    (
        "transpose heads",
        operator(lambda x: op.permute_dims(x, [0, 2, 1, 3]), *floats([1, 12, 5, 64])),
    ),
    (
        "transpose to channels last",
        operator(lambda x: op.permute_dims(x, [0, 2, 3, 1]), *floats([2, 21, 9, 11])),
    ),
    ("transpose, even", operator(lambda x: op.permute_dims(x, [1, 0]), *floats([64, 48]))),
    (
        "transpose and add",
        operator(
            lambda x, y: op.add(op.permute_dims(x, [0, 2, 1]), y), *floats([4, 10, 7], [4, 7, 10])
        ),
    ),
    (
        "transpose and reshape",
        operator(
            lambda x: op.nn.relu(op.reshape(op.permute_dims(x, [0, 2, 1]), (4, 70))),
            *floats([4, 10, 7]),
        ),
    ),
    # Reductions.
    ("mean of rows", operator(lambda x: op.mean(x, [-1]), *floats([12, 77]))),
    ("sum of columns", operator(lambda x: op.sum(x, [0]), *floats([77, 33]))),
    (
        "mean in the middle, relu",
        operator(lambda x: op.nn.relu(op.mean(x, [1])), *floats([5, 49, 40])),
    ),
    (
        "global average, channels first",
        operator(lambda x: op.mean(x, [2, 3]), *floats([1, 77, 7, 7])),
    ),
    (
        "global average, channels last",
        operator(lambda x: op.mean(x, [1, 2]), *floats([1, 7, 7, 100])),
    ),
    ("mean of everything", operator(lambda x: op.exp(op.mean(x)), *floats([40, 70]))),
    ("sum of everything", operator(op.sum, *floats([40, 70]))),
    ("sum of one prime row", operator(lambda x: op.sum(x, [0, 1]), *floats([1, 17]))),
    ("sum of scalars", operator(lambda x, y: op.sum(op.subtract(x, y)), *floats([], [3]))),
    ("reduce axes apart", operator(lambda x: op.sum(x, [0, 2]), *floats([6, 5, 33]))),
    ("max of rows, kept", operator(lambda x: op.max(x, [-1], keepdims=True), *floats([3, 5, 19]))),
    ("sum of integers", operator(lambda x: op.sum(x, [-1]), ([6, 37], "int32"))),
    ("product", operator(lambda x: op.prod(x, [-1]), *floats([6, 9]))),
    ("variance", operator(lambda x: op.variance(x, [1]), *floats([9, 100]))),
    ("argmax", operator(lambda x: op.argmax(x, 1), *floats([4, 10, 7]))),
    ("reduce one element", operator(lambda x: op.sum(x, [-1]), *floats([6, 1]))),
    ("argmin of the first axis", operator(lambda x: op.argmin(x, 0), *floats([9, 21]))),
    ("adaptive pool", operator(_adaptive_pool, *floats([1, 17, 9, 19]))),
    # Nothing read.
    ("zeros", operator(lambda: op.zeros([3, 5, 7], "float32"))),
    # Row kernels.
    ("softmax of 197", operator(lambda x: op.nn.softmax(x, -1), *floats([3, 19, 197]))),
    ("softmax of 128", operator(lambda x: op.nn.softmax(x, -1), *floats([12, 32, 128]))),
    ("softmax of 3", operator(lambda x: op.nn.softmax(x, -1), *floats([5, 3]))),
    ("softmax across", operator(lambda x: op.nn.softmax(x, 1), *floats([2, 19, 32]))),
    ("softmax across, prime", operator(lambda x: op.nn.softmax(x, 1), *floats([2, 19, 17]))),
    (
        "softmax in fast math",
        operator(lambda x: op.nn.softmax(x, -1), *floats([9, 77]), passes=FAST),
    ),
    ("log softmax", operator(lambda x: op.nn.log_softmax(x, -1), *floats([9, 77]))),
    ("layer norm of 768", operator(_norm(-1), *floats([4, 768], [768], [768]))),
    ("layer norm of 77", operator(_norm(-1), *floats([3, 5, 77], [77], [77]))),
    ("layer norm of two axes", operator(_norm(-2, -1), *floats([3, 4, 10], [4, 10], [4, 10]))),
    ("one row for every pixel", operator(_response_norm, *floats([1, 1, 1, 32], [1, 4, 4, 32]))),
    ("layer norm and gelu", operator(_gelu_norm, *floats([7, 40], [40], [40]))),
    ("rms norm", operator(_rms_norm, *floats([7, 96], [96]))),
    (
        "group norm",
        operator(
            lambda x, s, b: op.nn.group_norm(x, s, b, 2, 1, [2, 3]), *floats([1, 8, 5, 5], [8], [8])
        ),
    ),
    (
        "group norm, channels last",
        operator(
            lambda x, s, b: op.nn.group_norm(x, s, b, 4, 3, [1, 2]),
            *floats([2, 5, 5, 20], [20], [20]),
        ),
    ),
    # Resizing.
    ("resize, linear", operator(_resize("linear"), *floats([1, 5, 7, 21]))),
    ("resize, nearest", operator(_resize("nearest_neighbor"), *floats([2, 5, 7, 16]))),
    ("resize, cubic", operator(_resize("cubic"), *floats([1, 5, 7, 9]))),
    (
        "resize and concatenation",
        operator(
            lambda x, y: op.concat([_resize("linear")(x), y], 3),
            *floats([1, 5, 7, 32], [1, 11, 14, 16]),
        ),
    ),
    # Pooling.
    ("max pool, channels last", operator(max_pool("NHWC", 3, 2, 1), *floats([1, 13, 14, 24]))),
    ("max pool, odd channels", operator(max_pool("NHWC", 2, 2, 0), *floats([2, 8, 8, 7]))),
    ("max pool, channels first", operator(max_pool("NCHW", 3, 2, 1), *floats([1, 6, 14, 15]))),
    ("average pool", operator(_average_pool("NHWC", 3, 1, 1), *floats([1, 9, 9, 33]))),
    (
        "average pool, wide window",
        operator(_average_pool("NHWC", 7, 7, 0), *floats([1, 14, 14, 16])),
    ),
    # Scans and sorts.
    ("cumulative sum", operator(lambda x: op.cumsum(x, 1), *floats([4, 10]))),
    ("sort", operator(lambda x: op.sort(x, 1), *floats([4, 10]))),
]
