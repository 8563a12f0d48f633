"""A small model, and a tuning log that knows all its kernels."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from hybridc.compiler import frontend, pipeline, plugin, target
from hybridc.compiler.interfaces import Context, NotApplicable, Point, ScheduleRule, Space
from hybridc.compiler.log import access, keys
from hybridc.compiler.log.record import Record, Verdict


def model(path: Path, columns: int = 40) -> Path:
    """`relu(x @ w)`, then a softmax over the rows."""
    rng = np.random.default_rng(0)
    weight = numpy_helper.from_array(rng.standard_normal((48, columns)).astype("float32"), "w")
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("Relu", ["m"], ["r"]),
        helper.make_node("Softmax", ["r"], ["y"], axis=-1),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [6, 48])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [6, columns])],
        [weight],
    )
    opset = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)
    return path


def another(space: Space, default: Point) -> Point:
    """A point with another value of every knob that has one."""
    others = {knob: [v for v in values if v != default[knob]] for knob, values in space.items()}
    return {knob: (others[knob] or [default[knob]])[0] for knob in space}


def taken(func: Any, context: Context) -> tuple[ScheduleRule, Any]:
    """The first rule that takes a kernel, and its match."""
    offers = ((rule, rule.match(func, context.target)) for rule in context.rules)
    return next((rule, match) for rule, match in offers if not isinstance(match, NotApplicable))


def fill(path: Path, source: Path) -> None:
    """Write a log in which for each kernel another point than the default is fastest."""
    cpu = target.parse("cpu")
    context = Context(cpu, pipeline.rules())
    steps = pipeline.parse("default")
    at = [plugin.name_of(type(step)) for step in steps].index("schedule")
    module = pipeline.run(steps[:at], frontend.load(source).module, context)
    tools, place = keys.of_toolchain(), keys.of_target(cpu)
    described, records = [tools, place], list[Record]()
    for func in module.functions.values():
        if not hasattr(func, "params") or "Function" in type(func).__name__:
            continue
        workload = keys.of_kernel(func)
        described.append(workload)
        rule, match = taken(func, context)
        default = rule.default(match, cpu)
        other = another(rule.knobs(match), default)
        for point, seconds in ((other, 1e-6), (dict(default), 1e-3)):
            records.append(
                Record(
                    workload=workload.key,
                    target=place.key,
                    toolchain=tools.key,
                    rule=plugin.name_of(type(rule)),
                    point=point,
                    verdict=Verdict.OK,
                    seconds=(seconds,) * 3,
                    when=1.7e9,
                    who="tester",
                    seed=0,
                )
            )
    with access.open_log(str(path)) as log:
        assert log.add(records, described).faults.count == 0
