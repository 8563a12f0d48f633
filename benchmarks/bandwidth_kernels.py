"""The kernels of `bandwidth.py`: operators that move data, with operands of models."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from tvm import relax

op: Any = relax.op

Operand = tuple[Sequence[int], str]
Kernel = tuple[Callable[..., Any], list[Operand]]


def floats(*shapes: Sequence[int]) -> list[Operand]:
    """Operands of float32."""
    return [(shape, "float32") for shape in shapes]


def permute(*axes: int) -> Callable[..., Any]:
    """A transpose."""
    return lambda x: op.permute_dims(x, list(axes))


def resize(size: int, method: str, mode: str, layout: str = "NHWC") -> Callable[..., Any]:
    """A square image resized."""
    return lambda x: op.image.resize2d(
        x,
        relax.ShapeExpr([size, size]),
        layout=layout,
        method=method,
        coordinate_transformation_mode=mode,
        rounding_method="floor",
        cubic_alpha=-0.75,
    )


def pool(kind: str, window: int, stride: int, pad: int, layout: str = "NHWC") -> Any:
    """Pooling by square windows."""
    function = getattr(op.nn, f"{kind}_pool2d")
    return lambda x: function(x, (window, window), (stride, stride), (pad, pad), layout=layout)


def reduce(kind: str, *axes: int) -> Callable[..., Any]:
    """A reduction, or the place of an extreme."""
    place = kind.startswith("arg")
    return lambda x: getattr(op, kind)(x, axes[0] if place else list(axes))


def shuffle(x: Any) -> Any:
    """Two groups of channels interleaved."""
    *image, channels = (int(extent) for extent in x.ty.shape.values)
    parted = op.reshape(x, [*image, 2, channels // 2])
    return op.reshape(op.permute_dims(parted, [0, 1, 2, 4, 3]), [*image, channels])


def upsampled(x: Any, y: Any) -> Any:
    """A resized image beside another, as decoders join them."""
    return op.concat([resize(112, "linear", "half_pixel")(x), y], 3)


def mish(x: Any) -> Any:
    """Mish: x tanh(log(1 + e^x))."""
    softplus = op.log(op.add(op.exp(x), relax.const(1.0, "float32")))
    return op.multiply(x, op.tanh(softplus))


def norm(x: Any, scale: Any, shift: Any) -> Any:
    """Layer normalisation of the last axis."""
    return op.nn.layer_norm(x, scale, shift, [-1])


def group_norm(groups: int, channel: int) -> Callable[..., Any]:
    """Group normalisation of an image."""
    axes = [axis for axis in range(1, 4) if axis != channel]
    return lambda x, scale, shift: op.nn.group_norm(x, scale, shift, groups, channel, axes)


def softmax(axis: int) -> Callable[..., Any]:
    """Softmax over an axis."""
    return lambda x: op.nn.softmax(x, axis)


def power(exponent: float) -> Callable[..., Any]:
    """Every element to a power."""
    return lambda x: op.power(x, relax.const(exponent, "float32"))


def rows(table: Any, places: Any) -> Any:
    """An embedding: the rows of a table at some places."""
    return op.take(table, places, axis=0)


def second_rows(x: Any) -> Any:
    """Half of a tensor: every second of its rows."""
    return op.strided_slice(x, [0], [0], [int(x.ty.shape.values[0])], [2])


def zero_nans(x: Any) -> Any:
    """NaN as 0."""
    return op.where(op.isnan(x), relax.const(0.0, "float32"), x)


KERNELS: Mapping[str, Kernel] = MappingProxyType(
    {
        "add": (op.add, floats([256, 256], [256, 256])),
        "add, large": (op.add, floats([64, 56, 56, 8], [64, 56, 56, 8])),
        "gelu": (op.nn.gelu, floats([128, 3072])),
        "silu": (op.nn.silu, floats([128, 3072])),
        "sine": (op.sin, floats([128, 3072])),
        "cosine": (op.cos, floats([128, 3072])),
        "tangent": (op.tan, floats([128, 3072])),
        "logarithm": (op.log, floats([128, 3072])),
        "power of 2.2": (power(2.2), floats([128, 3072])),
        "root": (power(0.5), floats([128, 3072])),
        "mish": (mish, floats([128, 3072])),
        "NaN to zero": (zero_nans, floats([64, 128, 128])),
        "transpose of an image in": (permute(0, 2, 3, 1), floats([1, 3, 224, 224])),
        "transpose of an image out": (permute(0, 3, 1, 2), floats([1, 224, 224, 3])),
        "transpose to channels last": (permute(0, 2, 3, 1), floats([1, 256, 14, 14])),
        "transpose to channels first": (permute(0, 3, 1, 2), floats([1, 14, 14, 256])),
        "transpose of a matrix": (permute(1, 0), floats([768, 768])),
        "transpose of a matrix, large": (permute(1, 0), floats([4096, 4096])),
        "transpose of heads": (permute(0, 2, 1, 3), floats([1, 128, 12, 64])),
        "rows of a table": (rows, [([30522, 768], "float32"), ([128], "int64")]),
        "every second row": (second_rows, floats([512, 1024])),
        "concatenation of rows": (
            lambda x, y: op.concat([x, y], 0),
            floats([384, 1024], [128, 1024]),
        ),
        "channel shuffle": (shuffle, floats([1, 28, 28, 116])),
        "concatenation of channels": (
            lambda x, y: op.concat([x, y], 3),
            floats([1, 28, 28, 128], [1, 28, 28, 32]),
        ),
        "split of the last axis": (lambda x: op.split(x, 3, 2), floats([1, 128, 2304])),
        "resize, nearest": (
            resize(112, "nearest_neighbor", "asymmetric"),
            floats([1, 56, 56, 64]),
        ),
        "resize, linear": (resize(112, "linear", "half_pixel"), floats([1, 56, 56, 64])),
        "resize, cubic": (resize(112, "cubic", "half_pixel"), floats([1, 56, 56, 64])),
        "resize, channels first": (
            resize(112, "linear", "half_pixel", "NCHW"),
            floats([1, 64, 56, 56]),
        ),
        "resize to nearest, channels first": (
            resize(112, "nearest_neighbor", "asymmetric", "NCHW"),
            floats([1, 64, 56, 56]),
        ),
        "resize, cubic, channels first": (
            resize(112, "cubic", "half_pixel", "NCHW"),
            floats([1, 64, 56, 56]),
        ),
        "resize to half, channels first": (
            resize(56, "linear", "half_pixel", "NCHW"),
            floats([1, 64, 112, 112]),
        ),
        "resize and concatenation": (upsampled, floats([1, 56, 56, 64], [1, 112, 112, 64])),
        "max pool 3/2": (pool("max", 3, 2, 1), floats([1, 112, 112, 64])),
        "max pool 5/1": (pool("max", 5, 1, 2), floats([1, 20, 20, 256])),
        "max pool 3/2, channels first": (
            pool("max", 3, 2, 1, "NCHW"),
            floats([1, 64, 112, 112]),
        ),
        "max pool 5/1, channels first": (
            pool("max", 5, 1, 2, "NCHW"),
            floats([1, 256, 20, 20]),
        ),
        "average pool 2/2": (pool("avg", 2, 2, 0), floats([1, 56, 56, 128])),
        "average pool 2/2, channels first": (
            pool("avg", 2, 2, 0, "NCHW"),
            floats([1, 128, 56, 56]),
        ),
        "average pool 3/1, channels first": (
            pool("avg", 3, 1, 1, "NCHW"),
            floats([1, 128, 56, 56]),
        ),
        "global average pool, channels first": (reduce("mean", 2, 3), floats([1, 256, 56, 56])),
        "global average pool": (reduce("mean", 1, 2), floats([1, 56, 56, 256])),
        "adaptive average pool": (
            lambda x: op.nn.adaptive_avg_pool2d(x, (7, 7), layout="NHWC"),
            floats([1, 32, 32, 256]),
        ),
        "sum of the first axis": (reduce("sum", 0), floats([1024, 1024])),
        "sum of the middle axis": (reduce("sum", 1), floats([32, 64, 512])),
        "sum of the last axis": (reduce("sum", 1), floats([1024, 1024])),
        "argmax of the last axis": (reduce("argmax", 1), floats([1024, 1024])),
        "argmax of the first axis": (reduce("argmax", 0), floats([1024, 1024])),
        "maximum of the middle axes": (reduce("max", 1, 2), floats([8, 32, 32, 64])),
        "mean of the outer axes": (reduce("mean", 0, 2), floats([32, 256, 64])),
        "argmin of the last axis, short": (reduce("argmin", 1), floats([65536, 10])),
        "largest 8 of 1000": (
            lambda x: op.topk(x, k=8, axis=-1, ret_type="values"),
            floats([128, 1000]),
        ),
        "largest 100 of 10000": (
            lambda x: op.topk(x, k=100, axis=-1, ret_type="values"),
            floats([16, 10000]),
        ),
        "largest 5 of 10": (
            lambda x: op.topk(x, k=5, axis=-1, ret_type="values"),
            floats([8192, 10]),
        ),
        "sorted rows of 1000": (lambda x: op.sort(x, -1), floats([128, 1000])),
        "softmax of 128": (softmax(-1), floats([12, 128, 128])),
        "softmax of 3": (softmax(-1), floats([65536, 3])),
        "softmax of the first axis": (softmax(0), floats([21, 16384])),
        "softmax of 10": (softmax(-1), floats([65536, 10])),
        "softmax of the middle axis": (softmax(1), floats([4, 21, 16384])),
        "cumulative sum": (lambda x: op.cumsum(x, 1), floats([1024, 1024])),
        "cumulative sum, first axis": (lambda x: op.cumsum(x, 0), floats([1024, 1024])),
        "cumulative sum, middle axis": (lambda x: op.cumsum(x, 1), floats([32, 64, 512])),
        "layer norm": (norm, floats([128, 768], [768], [768])),
        "layer norm of 32": (norm, floats([3136, 32], [32], [32])),
        "layer norm of 24": (norm, floats([3136, 24], [24], [24])),
        "group norm, channels last": (group_norm(32, 3), floats([1, 32, 32, 256], [256], [256])),
        "group norm, channels first": (group_norm(32, 1), floats([1, 256, 32, 32], [256], [256])),
        "pad": (
            lambda x: op.nn.pad(x, (0, 0, 1, 1, 1, 1, 0, 0)),
            floats([1, 56, 56, 64]),
        ),
    }
)
