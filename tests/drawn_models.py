"""Small models of drawn shapes, compiled as users compile them, against ONNX Runtime.

Rules take their default points, or points drawn from their spaces: what a tuner may try has to be
right as well.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any
from unittest.mock import patch

import ml_dtypes
import numpy as np
import onnxruntime
from hypothesis import settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper
from onnx_models import build

from hybridc.compiler import pipeline
from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.driver import Outcome, compile_source
from hybridc.compiler.interfaces import Match, Point, ScheduleRule
from hybridc.compiler.runtime.session import InferenceSession
from hybridc.compiler.target import Target

FEW = settings(max_examples=10, deadline=None, derandomize=True)
EXTENTS = st.sampled_from([1, 1, 2, 3, 5, 7, 8, 13, 16, 17, 24, 31, 32, 33, 48, 64, 65, 77])
# None is the default point; a number draws others.
POINTS = st.none() | st.integers(0, 99)


def shapes(least: int = 1, most: int = 4, elements: int = 20_000) -> st.SearchStrategy[Any]:
    """Shapes of `least` to `most` axes."""
    drawn = st.lists(EXTENTS, min_size=least, max_size=most).map(tuple)
    return drawn.filter(lambda shape: prod(shape) <= elements)


def broadcast(draw: Callable[..., Any], shape: Sequence[int]) -> tuple[int, ...]:
    """A shape that broadcasts to `shape`."""
    kept = draw(st.tuples(*[st.booleans()] * len(shape)))
    return tuple(extent if keep else 1 for extent, keep in zip(shape, kept, strict=True))


def noise(shape: Sequence[int], dtype: str = "float32") -> Any:
    values = np.random.default_rng(sum(shape)).standard_normal(shape)
    return (values if "float" in dtype else 9 * values).astype(dtype)


def model(
    nodes: Sequence[Any],
    feed: Mapping[str, Any],
    constants: Mapping[str, Any] | None = None,
    outputs: Sequence[str] = ("y",),
) -> Any:
    """Nodes that make `outputs`, of the type of the first input, from what is fed."""
    kinds = {name: helper.np_dtype_to_tensor_dtype(x.dtype) for name, x in feed.items()}
    made = [(name, next(iter(kinds.values())), None) for name in outputs]
    given = [(name, kinds[name], x.shape) for name, x in feed.items()]
    return build(nodes, given, made, dict(constants or {}), opset=21)


def _at_drawn_point(rule: ScheduleRule, seed: int) -> ScheduleRule:
    kind: Any = type(rule)
    draw = random.Random(seed)

    def default(self: ScheduleRule, match: Match, target: Target) -> Point:
        return {knob: draw.choice(values) for knob, values in self.knobs(match).items()}

    return type(kind.__name__, (kind,), {"default": default})()


def compiled(proto: Any, cpu: str, seed: int | None = None, **options: Any) -> Outcome:
    """Compile for `cpu`; no rule may stumble over a kernel that it takes."""
    rules = pipeline.rules()
    if seed is not None:
        rules = tuple(_at_drawn_point(rule, seed) for rule in rules)
    with patch.object(pipeline, "rules", lambda *_: rules):
        outcome = compile_source(proto, Options(target=cpu, verify="off", threads=2, **options))
    assert not [note for note in outcome.report.notes if "failed" in note]
    return outcome


def agree(
    proto: Any,
    feed: Mapping[str, Any],
    cpu: str,
    seed: int | None = None,
    rule: str = "",
    **options: Any,
) -> None:
    """The compiled model computes what ONNX Runtime computes; `rule` has to take a kernel of it.

    In bf16 ONNX Runtime gets operands that are rounded so.
    """
    narrow = options.get("dtype") == "bf16"
    session = onnxruntime.InferenceSession(_rounded(proto) if narrow else proto.SerializeToString())
    wanted: Any = session.run(None, {k: _nearest(x) if narrow else x for k, x in feed.items()})
    outcome = compiled(proto, cpu, seed, **options)
    got = InferenceSession(outcome.artifact, 2).run(None, dict(feed))
    share = 2e-2 if narrow else 1e-4
    for value, right in zip(got, wanted, strict=True):
        assert value.dtype == right.dtype
        if right.dtype.kind == "f":
            absolute = share * max(1.0, float(np.abs(right).max(initial=0)))
            np.testing.assert_allclose(value, right, rtol=share, atol=absolute)
        else:
            np.testing.assert_array_equal(value, right)
    assert not rule or rule in {kernel.rule for kernel in outcome.report.kernels}


def _nearest(array: Any) -> Any:
    """Rounded to bfloat16, if it is of floats."""
    narrow = array.dtype == np.float32
    return array.astype(ml_dtypes.bfloat16).astype("float32") if narrow else array


def _rounded(proto: Any) -> bytes:
    """The model with weights rounded to bfloat16."""
    made = type(proto).FromString(proto.SerializeToString())
    for tensor in made.graph.initializer:
        array = _nearest(numpy_helper.to_array(tensor))
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return bytes(made.SerializeToString())
