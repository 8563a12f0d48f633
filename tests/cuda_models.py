"""Small models, and what a GPU would answer: the graph step by step, each kernel emulated."""

from typing import Any

import numpy as np
import tvm
from cuda_emulator import run
from onnx_models import FLOAT, build, node
from tvm import relax

from hybridc.compiler import frontend, pipeline, plugin
from hybridc.compiler.configuration import plans
from hybridc.compiler.interfaces import Context, IRModule
from hybridc.compiler.ir.rewrite import bindings_of, operator
from hybridc.compiler.kernel_record import KernelRecord
from hybridc.compiler.model import Array, Model, random_feed
from hybridc.compiler.target import Target


def residual_network(channels: int = 16, size: int = 12) -> Any:
    """Two residual blocks, the second with a stride, then a mean and a classifier."""
    draw = np.random.default_rng(5)
    weights: dict[str, Array] = {}

    def conv(x: str, y: str, inputs: int, outputs: int, kernel: int, stride: int = 1) -> Any:
        scale = (2 / (inputs * kernel * kernel)) ** 0.5
        shape = (outputs, inputs, kernel, kernel)
        weights[f"w_{y}"] = (scale * draw.standard_normal(shape)).astype("float32")
        weights[f"b_{y}"] = draw.standard_normal(outputs).astype("float32") / 10
        how: dict[str, Any] = {"pads": [kernel // 2] * 4, "strides": [stride] * 2}
        return node("Conv", f"{x} w_{y} b_{y}", y, kernel_shape=[kernel] * 2, **how)

    wide = 2 * channels
    nodes = [
        conv("image", "c0", 3, channels, 3),
        node("Relu", "c0", "r0"),
        conv("r0", "c1", channels, channels, 3),
        node("Relu", "c1", "r1"),
        conv("r1", "c2", channels, channels, 3),
        node("Add", "c2 r0", "a1"),
        node("Relu", "a1", "r2"),
        node("MaxPool", "r2", "p", kernel_shape=[2, 2], strides=[2, 2]),
        conv("p", "c3", channels, wide, 3, 2),
        conv("p", "c4", channels, wide, 1, 2),
        node("Add", "c3 c4", "a2"),
        node("Relu", "a2", "r3"),
        node("GlobalAveragePool", "r3", "g"),
        node("Flatten", "g", "f"),
        node("Gemm", "f wf bf", "logits", transB=1),
    ]
    weights["wf"] = draw.standard_normal((10, wide)).astype("float32") / 5
    weights["bf"] = draw.standard_normal(10).astype("float32")
    image = ("image", FLOAT, (1, 3, size, size))
    return build(nodes, [image], [("logits", FLOAT, (1, 10))], weights)


def transformer(rows: int = 24, width: int = 32, heads: int = 2) -> Any:
    """A layer norm, attention, a residual, and a feed-forward part with a GELU."""
    draw = np.random.default_rng(6)
    weights: dict[str, Array] = {
        "heads": np.array([1, rows, heads, width // heads], "int64"),
        "flat": np.array([1, rows, width], "int64"),
        "scale": np.array((width // heads) ** -0.5, "float32"),
        **{name: np.ones(width, "float32") for name in ("g1", "g2")},
        **{name: np.zeros(width, "float32") for name in ("h1", "h2")},
    }
    shapes = {"wq": width, "wk": width, "wv": width, "wo": width, "w1": 4 * width}
    for name, columns in shapes.items():
        weights[name] = draw.standard_normal((width, columns)).astype("float32") * width**-0.5
    weights["w2"] = draw.standard_normal((4 * width, width)).astype("float32") * width**-0.5 / 2
    nodes = [node("LayerNormalization", "x g1 h1", "n", axis=-1)]
    for name, order in (("q", [0, 2, 1, 3]), ("k", [0, 2, 3, 1]), ("v", [0, 2, 1, 3])):
        nodes += [
            node("MatMul", f"n w{name}", f"{name}0"),
            node("Reshape", f"{name}0 heads", f"{name}1"),
            node("Transpose", f"{name}1", name, perm=order),
        ]
    nodes += [
        node("MatMul", "q k", "s0"),
        node("Mul", "s0 scale", "s1"),
        node("Softmax", "s1", "s", axis=-1),
        node("MatMul", "s v", "c0"),
        node("Transpose", "c0", "c1", perm=[0, 2, 1, 3]),
        node("Reshape", "c1 flat", "c"),
        node("MatMul", "c wo", "o"),
        node("Add", "o x", "r"),
        node("LayerNormalization", "r g2 h2", "m", axis=-1),
        node("MatMul", "m w1", "f1"),
        node("Gelu", "f1", "f2"),
        node("MatMul", "f2 w2", "f3"),
        node("Add", "f3 r", "y"),
    ]
    x = ("x", FLOAT, (1, rows, width))
    return build(nodes, [x], [("y", FLOAT, (1, rows, width))], weights)


def answers(source: Any, options: plans.Options, order: int = 0) -> tuple[list[Any], list[Any]]:
    """What the GPU would answer to random inputs, and what the model's reference does."""
    model: Model = frontend.load(source, shapes={}, fallback=False)
    module, context = scheduled(model, options)
    feed = random_feed(model.inputs)
    given = [feed[spec.name] for spec in model.inputs]
    return execute(module, given, context.target, order), list(model.reference(feed))


def records(source: Any, options: plans.Options) -> list[KernelRecord]:
    """How each kernel of a model is scheduled."""
    return scheduled(frontend.load(source, shapes={}, fallback=False), options)[1].kernels


def scheduled(model: Model, options: plans.Options) -> tuple[IRModule, Context]:
    """A model's module with its kernels scheduled, and what was noted on the way."""
    plan = plans.plan(options)
    names = [plugin.name_of(type(step)) for step in plan.steps]
    steps = plan.steps[: names.index("allocate")]
    context = Context(plan.target, plan.rules)
    module = pipeline.run(steps, model.module, context)
    assert not context.notes or all("failed" not in note for note in context.notes), context.notes
    return module, context


def execute(module: IRModule, inputs: list[Array], target: Target, order: int) -> list[Array]:
    """Run `main` of a scheduled module, binding by binding."""
    main = module["main"]
    values: dict[Any, Any] = dict(zip(main.params, inputs, strict=True))

    def value(expr: Any) -> Any:
        if isinstance(expr, tvm.ir.GenericConst):
            return expr.value.numpy()
        if isinstance(expr, tvm.ir.Tuple):
            return [value(field) for field in expr.fields]
        if isinstance(expr, tvm.ir.TupleGetItem):
            return value(expr.tuple_value)[expr.index]
        return values[expr] if expr in values else computed(expr)

    def computed(call: Any) -> Any:
        if operator(call) == "reshape":
            return value(call.args[0]).reshape([int(e) for e in call.ty.shape.values])
        assert operator(call) == "call_tir", call
        arguments = [value(field) for field in call.args[1].fields]
        single = not isinstance(call.ty, relax.TupleType)
        results = [call.ty] if single else list(call.ty.fields)
        made = [np.zeros([int(e) for e in each.shape.values], str(each.dtype)) for each in results]
        found = run(module[call.args[0]], [*arguments, *made], target, order)
        return found[-1] if single else found[len(arguments) :]

    for binding in bindings_of(main):
        values[binding.var] = value(binding.value)
    result = value(main.body.body)
    return result if isinstance(result, list) else [result]
