"""Kernels of many kinds and awkward shapes; `KERNELS` is the list to add one to.

Each entry names a kernel and builds it for a target: TIR functions as they reach the schedule
rules, made by `operator` from Relax operators with the passes that run before scheduling.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from tvm import relax, tirx

from hybridc.compiler import pipeline
from hybridc.compiler.interfaces import Context, PrimFunc
from hybridc.compiler.target import Target

Builder = Callable[[Target], list[PrimFunc]]
Operand = tuple[Sequence[int], str]
op: Any = relax.op

LOWERED = "legalize,fuse"
FAST = f"{LOWERED},fast-math"
MIXED = f"layout,fold-constants,mixed-precision,pack-weights,{LOWERED}"
QUANTIZED = f"integer-arithmetic,layout,fold-constants,pack-weights,{LOWERED}"
PACKED = f"layout,fold-constants,pack-weights,{LOWERED}"


def floats(*shapes: Sequence[int]) -> list[Operand]:
    """Operands of float32."""
    return [(shape, "float32") for shape in shapes]


def bf16(*shapes: Sequence[int]) -> list[Operand]:
    """Operands of bfloat16."""
    return [(shape, "bfloat16") for shape in shapes]


def operator(build: Callable[..., Any], *operands: Operand, passes: str = LOWERED) -> Builder:
    """The kernels of a Relax expression over operands of these shapes and types."""

    def kernels(cpu: Target) -> list[PrimFunc]:
        builder = relax.BlockBuilder()
        inputs = [
            relax.Var(f"x{i}", relax.TensorType(shape, dtype))
            for i, (shape, dtype) in enumerate(operands)
        ]
        with builder.function("main", inputs):
            with builder.dataflow():
                result = builder.emit_output(builder.normalize(build(*inputs)))
            builder.emit_func_output(result)
        module = pipeline.run(pipeline.parse(passes), builder.finalize(), Context(cpu))
        found = [func for _, func in module.functions_items()]
        return [func for func in found if isinstance(func, tirx.PrimFunc)]

    return kernels


def constant(*shape: int) -> Any:
    """Weights, for the kernels that want them constant."""
    values = np.random.default_rng(0).standard_normal(shape).astype("float32")
    return relax.const(values)


def _convolution(x: Any) -> Any:
    return op.nn.conv2d(x, constant(10, 5, 3, 3), strides=(2, 1), padding=1)


def _narrow_pair(x: Any) -> Any:
    """Two convolutions with a residual, and a pooling between them."""
    first = op.nn.relu(op.nn.conv2d(x, constant(16, 3, 3, 3), padding=1))
    pooled = op.nn.max_pool2d(first, (2, 2), (1, 1), (0, 0))
    return op.add(op.nn.conv2d(pooled, constant(16, 16, 1, 1)), pooled)


def _narrow_chain(x: Any) -> Any:
    hidden = op.nn.gelu(op.add(op.matmul(x, constant(40, 33)), constant(33)))
    return op.matmul(hidden, constant(33, 24))


def _grouped(outputs: int) -> Callable[..., Any]:
    """Two groups; from 6 channels, three inputs each."""
    return lambda x: op.nn.conv2d(x, constant(outputs, 3, 3, 2), padding=1, groups=2)


def _gelu_sum(x: Any, y: Any) -> Any:
    return op.add(op.nn.gelu(op.add(x, y)), x)


def _quantized(*shape: int, residual: bool = False, **options: Any) -> Callable[..., Any]:
    """A product of quantised activations and weights, and a quantised residual; all of uint8."""
    draw = np.random.default_rng(0)
    outputs = shape[0] if len(shape) == 4 else shape[1]
    scale, zero = (relax.const(np.asarray(v)) for v in (np.float32(0.1), np.uint8(7)))
    steps = relax.const(draw.uniform(0.01, 0.02, outputs).astype("float32"))
    weight = op.dequantize(
        relax.const(draw.integers(-128, 128, shape).astype("int8")),
        steps,
        relax.const(np.zeros(outputs, "int8")),
        axis=0 if len(shape) == 4 else 1,
    )
    point = relax.const(np.uint8(99))

    def product(x: Any, y: Any = None) -> Any:
        data = op.dequantize(x, scale, zero)
        if len(shape) == 4:
            result = op.nn.conv2d(data, weight, **options)
        else:
            result = op.matmul(data, weight)
        result = op.quantize(result, relax.const(np.float32(0.9)), point, out_dtype="uint8")
        if not residual:
            return result
        result = op.dequantize(result, relax.const(np.float32(0.9)), point)
        return op.quantize(op.add(result, op.dequantize(y, scale, zero)), scale, zero, 0, "uint8")

    return product


def bytes_of(*shapes: Sequence[int]) -> list[Operand]:
    """Operands of uint8."""
    return [(shape, "uint8") for shape in shapes]


def _depthwise(x: Any) -> Any:
    return op.nn.relu(op.nn.conv2d(x, constant(11, 1, 3, 3), strides=(1, 2), padding=1, groups=11))


def _window(
    inputs: int, outputs: int, size: int, groups: int = 1, **attributes: Any
) -> Callable[..., Any]:
    """A convolution with a square window and a relu behind it."""
    weight = constant(outputs, inputs // groups, size, size)
    return lambda x: op.nn.relu(op.nn.conv2d(x, weight, groups=groups, **attributes))


def _attention(q: Any, k: Any, v: Any, mask: Any) -> Any:
    """Heads of `[batch, length, heads, depth]`, as exporters write them."""
    queries, values = (op.permute_dims(x, [0, 2, 1, 3]) for x in (q, v))
    scores = op.matmul(queries, op.permute_dims(k, [0, 2, 3, 1]))
    scaled = op.add(op.multiply(scores, relax.const(0.5, "float32")), mask)
    return op.matmul(op.nn.softmax(scaled, axis=-1), values)


def _zero_nans(x: Any) -> Any:
    return op.where(op.isnan(x), relax.const(0.0, "float32"), x)


def _permute(*axes: int) -> Callable[..., Any]:
    return lambda x: op.permute_dims(x, list(axes))


def _shuffle(x: Any) -> Any:
    parted = op.permute_dims(op.reshape(x, [1, 3, 5, 2, 11]), [0, 1, 2, 4, 3])
    return op.reshape(parted, [1, 3, 5, 22])


def _resize(method: str) -> Callable[..., Any]:
    size = relax.ShapeExpr([11, 14])
    return lambda x: op.image.resize2d(x, size, layout="NHWC", method=method)


def _adaptive_pool(x: Any) -> Any:
    return op.nn.adaptive_avg_pool2d(x, (1, 2), layout="NHWC")


def _grouped_attention(q: Any, k: Any, v: Any, mask: Any) -> Any:
    """Three queries of each head of keys `[batch, heads, length, depth]`, masked by booleans."""

    def repeated(x: Any) -> Any:
        copies = op.broadcast_to(op.expand_dims(x, [2]), (1, 2, 3, 9, 16))
        return op.reshape(copies, (1, 6, 9, 16))

    scores = op.matmul(q, op.permute_dims(repeated(k), [0, 1, 3, 2]))
    masked = op.where(mask, scores, relax.const(-1e9, "float32"))
    return op.matmul(op.nn.softmax(masked, axis=-1), repeated(v))


def _norm(*axes: int) -> Callable[..., Any]:
    return lambda x, scale, shift: op.nn.layer_norm(x, scale, shift, list(axes))


def _gelu_norm(x: Any, scale: Any, shift: Any) -> Any:
    return op.nn.gelu(op.nn.layer_norm(x, scale, shift, [-1]))


def _response_norm(row: Any, image: Any) -> Any:
    return op.multiply(image, op.divide(row, op.mean(row, [-1], keepdims=True)))


def _rms_norm(x: Any, scale: Any) -> Any:
    return op.nn.rms_norm(x, scale, [-1])


def _max_pool(layout: str, window: int, stride: int, pad: int) -> Callable[..., Any]:
    return lambda x: op.nn.relu(
        op.nn.max_pool2d(x, (window, window), (stride, stride), (pad, pad), layout=layout)
    )


def _average_pool(layout: str, window: int, stride: int, pad: int) -> Callable[..., Any]:
    return lambda x: op.nn.avg_pool2d(
        x, (window, window), (stride, stride), (pad, pad), layout=layout
    )


def _bottleneck(
    inputs: int, channels: int, outputs: int, size: int = 3, **attributes: Any
) -> Callable[..., Any]:
    """Expansion, depthwise window, projection; 0 `inputs` or `outputs` leaves one out."""

    def build(x: Any) -> Any:
        if inputs:
            x = op.nn.relu(op.nn.conv2d(x, constant(channels, inputs, 1, 1)))
        x = _window(channels, channels, size, channels, **attributes)(x)
        return op.nn.conv2d(x, constant(outputs, channels, 1, 1)) if outputs else x

    return build


KERNELS: list[tuple[str, Builder]] = [
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
    # Copies.
    (
        "concat, whole vectors",
        operator(lambda x, y: op.concat([x, y], 1), *floats([4, 32], [4, 16])),
    ),
    ("concat, odd", operator(lambda x, y: op.concat([x, y], 1), *floats([4, 5], [4, 3]))),
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
    ("max pool, channels last", operator(_max_pool("NHWC", 3, 2, 1), *floats([1, 13, 14, 24]))),
    ("max pool, odd channels", operator(_max_pool("NHWC", 2, 2, 0), *floats([2, 8, 8, 7]))),
    ("max pool, channels first", operator(_max_pool("NCHW", 3, 2, 1), *floats([1, 6, 14, 15]))),
    ("average pool", operator(_average_pool("NHWC", 3, 1, 1), *floats([1, 9, 9, 33]))),
    (
        "average pool, wide window",
        operator(_average_pool("NHWC", 7, 7, 0), *floats([1, 14, 14, 16])),
    ),
    # Scans and sorts.
    ("cumulative sum", operator(lambda x: op.cumsum(x, 1), *floats([4, 10]))),
    ("sort", operator(lambda x: op.sort(x, 1), *floats([4, 10]))),
    # Contractions.
    ("product of activations", operator(op.matmul, *floats([2, 9, 13], [2, 13, 21]))),
    ("product of a row", operator(op.matmul, *floats([1, 40], [40, 64]))),
    (
        "product of few rows and an epilogue",
        operator(lambda a, b: op.nn.relu(op.matmul(a, b)), *floats([2, 3, 13], [2, 13, 48])),
    ),
    ("product with a vector", operator(op.matmul, *floats([9, 13], [13]))),
    (
        "dense",
        operator(lambda x: op.matmul(x, constant(13, 21)), *floats([2, 5, 13]), passes=PACKED),
    ),
    (
        "dense, few rows",
        operator(lambda x: op.matmul(x, constant(600, 1001)), *floats([11, 600]), passes=PACKED),
    ),
    (
        "dense, one row and an epilogue",
        operator(
            lambda x: op.nn.relu(op.matmul(x, constant(700, 960))),
            *floats([1, 1, 700]),
            passes=PACKED,
        ),
    ),
    (
        "dense of many panels",
        operator(
            lambda x: op.nn.relu(op.matmul(x, constant(40, 205))), *floats([29, 40]), passes=PACKED
        ),
    ),
    ("convolution", operator(_convolution, *floats([1, 5, 9, 7]), passes=PACKED)),
    (
        "convolution of many panels",
        operator(_window(7, 100, 3, padding=1, strides=2), *floats([2, 7, 5, 9]), passes=PACKED),
    ),
    (
        "convolution of half vectors",
        operator(_window(5, 23, 3, padding=1), *floats([1, 5, 9, 11]), passes=PACKED),
    ),
    (
        "groups of half vectors",
        operator(_window(6, 24, 3, 3, padding=1), *floats([1, 6, 9, 7]), passes=PACKED),
    ),
    (
        "groups of a quarter of a vector",
        operator(_window(12, 16, 3, 4, dilation=2), *floats([2, 12, 9, 8]), passes=PACKED),
    ),
    ("depthwise convolution", operator(_depthwise, *floats([1, 11, 9, 7]), passes=PACKED)),
    (
        "depthwise, 7x7 on a small image",
        operator(_window(48, 48, 7, 48, padding=3), *floats([1, 48, 7, 7]), passes=PACKED),
    ),
    (
        "depthwise, long rows",
        operator(_window(16, 16, 3, 16, padding=1), *floats([2, 16, 5, 37]), passes=PACKED),
    ),
    (
        "depthwise, 5x5, strided and dilated",
        operator(
            _window(24, 24, 5, 24, strides=2, padding=(3, 1, 4, 2), dilation=(2, 1)),
            *floats([1, 24, 11, 23]),
            passes=PACKED,
        ),
    ),
    (
        "depthwise, more padding than image",
        operator(_window(8, 16, 3, 8, padding=4), *floats([1, 8, 2, 3]), passes=PACKED),
    ),
    (
        "bottleneck",
        operator(
            _bottleneck(8, 48, 24, padding=1),
            *floats([1, 8, 14, 13]),
            passes=f"{PACKED},fuse-depthwise",
        ),
    ),
    (
        "bottleneck, strided, without projection",
        operator(
            _bottleneck(5, 33, 0, strides=2, padding=(0, 1, 2, 1)),
            *floats([1, 5, 12, 11]),
            passes=f"{PACKED},fuse-depthwise",
        ),
    ),
    (
        "window and projection",
        operator(
            _bottleneck(0, 32, 7, size=5, padding=2),
            *floats([2, 32, 8, 9]),
            passes=f"{PACKED},fuse-depthwise",
        ),
    ),
    (
        "convolution by Winograd's filtering",
        operator(
            lambda x: op.nn.conv2d(x, constant(64, 64, 3, 3), padding=1),
            *floats([1, 64, 28, 28]),
            passes=PACKED,
        ),
    ),
    (
        "attention",
        operator(
            _attention,
            *floats([1, 7, 2, 5], [1, 9, 2, 5], [1, 9, 2, 5], [1, 1, 1, 9]),
            passes=f"fuse-attention,{LOWERED}",
        ),
    ),
    # Quantised.
    ("int8 dense", operator(_quantized(64, 48), *bytes_of([14, 64]), passes=QUANTIZED)),
    ("int8 dense, odd", operator(_quantized(13, 21), *bytes_of([2, 5, 13]), passes=QUANTIZED)),
    ("int8 dense of a row", operator(_quantized(70, 100), *bytes_of([1, 70]), passes=QUANTIZED)),
    (
        "int8 dense and residual",
        operator(_quantized(32, 40, residual=True), *bytes_of([9, 32], [9, 40]), passes=QUANTIZED),
    ),
    (
        "int8 convolution",
        operator(_quantized(32, 16, 3, 3, padding=1), *bytes_of([1, 16, 9, 11]), passes=QUANTIZED),
    ),
    (
        "int8 convolution, three channels",
        operator(
            _quantized(21, 3, 3, 3, padding=(1, 0), strides=(2, 1)),
            *bytes_of([2, 3, 9, 7]),
            passes=QUANTIZED,
        ),
    ),
    (
        "int8 grouped convolution",
        operator(
            _quantized(32, 3, 3, 3, padding=1, groups=2), *bytes_of([1, 6, 7, 9]), passes=QUANTIZED
        ),
    ),
    (
        "int8 depthwise convolution",
        operator(
            _quantized(11, 1, 3, 3, padding=1, strides=(1, 2), groups=11),
            *bytes_of([1, 11, 9, 7]),
            passes=QUANTIZED,
        ),
    ),
    (
        "int8 depthwise convolution, whole vectors",
        operator(
            _quantized(32, 1, 3, 3, padding=1, groups=32),
            *bytes_of([1, 32, 9, 9]),
            passes=QUANTIZED,
        ),
    ),
    # bfloat16 in memory, products of pairs.
    (
        "bf16 dense, odd depth",
        operator(lambda x: op.matmul(x, constant(13, 21)), *floats([2, 5, 13]), passes=MIXED),
    ),
    ("bf16 dense and epilogue", operator(_narrow_chain, *floats([7, 40]), passes=MIXED)),
    ("bf16 convolution", operator(_convolution, *floats([1, 5, 9, 7]), passes=MIXED)),
    ("bf16 convolution, even", operator(_narrow_pair, *floats([2, 3, 11, 9]), passes=MIXED)),
    ("bf16 grouped convolution", operator(_grouped(32), *floats([1, 6, 7, 9]), passes=MIXED)),
    ("bf16 groups of odd inputs", operator(_grouped(48), *floats([1, 6, 7, 9]), passes=MIXED)),
    ("bf16 depthwise convolution", operator(_depthwise, *floats([1, 11, 9, 7]), passes=MIXED)),
    (
        "bf16 product of activations",
        operator(op.matmul, *floats([2, 9, 14], [2, 14, 21]), passes=MIXED),
    ),
    (
        "bf16 product of activations, odd",
        operator(op.matmul, *floats([3, 1, 9, 13], [2, 13, 32]), passes=MIXED),
    ),
    (
        "bf16 attention",
        operator(
            _attention,
            *floats([1, 7, 2, 5], [1, 9, 2, 5], [1, 9, 2, 5], [1, 1, 1, 9]),
            passes=f"fuse-attention,mixed-precision,{LOWERED}",
        ),
    ),
    ("bf16 elementwise", operator(_gelu_sum, *bf16([3, 197], [197]))),
    ("bf16 copies", operator(lambda x: op.permute_dims(x, [0, 2, 1]), *bf16([3, 19, 40]))),
    ("bf16 max pool", operator(_max_pool("NHWC", 3, 2, 1), *bf16([1, 13, 14, 24]))),
    ("bf16 concat", operator(lambda x, y: op.concat([x, y], 1), *bf16([4, 5], [4, 3]))),
    (
        "attention of one query",
        operator(
            _attention,
            *floats([1, 1, 2, 8], [1, 19, 2, 8], [1, 19, 2, 8], [1, 1, 1, 19]),
            passes=f"fuse-attention,{LOWERED}",
        ),
    ),
    (
        "attention of grouped heads",
        operator(
            _grouped_attention,
            *floats([1, 6, 5, 16], [1, 2, 9, 16], [1, 2, 9, 16]),
            ([5, 9], "bool"),
            passes=f"fuse-attention,{LOWERED}",
        ),
    ),
    (
        "convolution, channels first",
        operator(lambda x, w: op.nn.conv2d(x, w, padding=1), *floats([1, 3, 9, 9], [5, 3, 3, 3])),
    ),
]
