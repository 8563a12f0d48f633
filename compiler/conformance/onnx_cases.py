"""A case of ONNX's own tests: a model, inputs, and the outputs that it must have.

The comparison is that of ONNX's runner: equal counts, shapes and types, numbers within the case's
own tolerance; or nearer than the stored output to what ONNX's reference computes in float64.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from hybridc.compiler.conformance.comparison import Tolerance, difference
from hybridc.compiler.conformance.precise import nearer
from hybridc.compiler.conformance.suite import Result, Verdict
from hybridc.compiler.errors import InputError, ModelError, hint
from hybridc.compiler.frontends.onnx_import.operators import draws

Proto = Any  # a message of onnx; the library ships no types for them


@dataclass(frozen=True)
class Case:
    """A model and its data sets, pairs of inputs and expected outputs in the model's order."""

    model: Proto
    data: Sequence[tuple[Sequence[Any], Sequence[Any]]]
    tolerance: Tolerance


@dataclass(frozen=True)
class _Ran:
    """Outputs, the inputs that were compiled as constants, and whether another runtime helped."""

    outputs: Sequence[Any]
    fixed: frozenset[str] = frozenset()
    helped: bool = False


def examine(case: Case, engine: str = "hybridc", fallback: bool = True) -> Result:
    """Compile a case with the default pipeline, run every data set, and compare.

    Inputs that decide shapes are compiled as constants, with the values of the data set.  With
    `fallback`, what cannot be compiled is left to ONNX Runtime, which is a verdict of its own.  The
    engine `ort` is ONNX Runtime instead, for comparison.  Raises ModelError if the compiler
    refuses the model or the case stores numbers that another's generator drew, and InputError for
    an engine that is not known.
    """
    if engine not in _ENGINES:
        raise InputError(f"engine {engine!r} is not known; {hint(engine, _ENGINES)}")
    run = _ENGINES[engine]
    fixed: set[str] = set()
    verdict = Verdict.PASS
    for stored, expected in case.data:
        inputs, wanted = ([_value(value) for value in side] for side in (stored, expected))
        ran = run(case.model, inputs, fallback)
        fixed.update(ran.fixed)
        if ran.helped:
            verdict = Verdict.FALLBACK
        if differs := difference(ran.outputs, wanted, case.tolerance):
            if nearer(case.model, inputs, ran.outputs, wanted, case.tolerance):
                continue
            if draws(case.model):
                raise ModelError("it draws random numbers, which ONNX leaves to the implementation")
            return Result("", "", Verdict.WRONG, differs, tuple(sorted(fixed)))
    return Result("", "", verdict, "", tuple(sorted(fixed)))


def _by_hybridc(model: Proto, inputs: Sequence[Any], fallback: bool) -> _Ran:
    from hybridc.compiler.conformance.onnx_backend import Prepared

    prepared = Prepared(model, fallback)
    outputs = prepared.run(inputs)
    return _Ran(outputs, prepared.deciding, bool(prepared.regions()))


def _by_ort(model: Proto, inputs: Sequence[Any], fallback: bool) -> _Ran:
    del fallback  # it is the other runtime itself
    from hybridc.compiler.frontends.onnx_reference import runtime_session

    initialised = {tensor.name for tensor in model.graph.initializer}
    names = [value.name for value in model.graph.input if value.name not in initialised]
    feed = dict(zip(names, inputs, strict=False))
    try:
        session = runtime_session(model)
    except Exception as error:  # its classes are not public
        raise ModelError(str(error)) from None
    return _Ran(session.run(None, feed))


_ENGINES: Mapping[str, Callable[[Proto, Sequence[Any], bool], _Ran]] = MappingProxyType(
    {"hybridc": _by_hybridc, "ort": _by_ort}
)


def _value(value: Any) -> Any:
    """An array, or a list of them, or None."""
    import onnx

    if isinstance(value, onnx.TensorProto):
        return onnx.numpy_helper.to_array(value)
    if isinstance(value, onnx.SequenceProto):
        return [_value(item) for item in onnx.numpy_helper.to_list(value)]
    if isinstance(value, list | tuple):
        return [_value(item) for item in value]
    return value if value is None else np.asarray(value)


def is_core(model: Proto) -> bool:
    """Whether all operators are ai.onnx and all inputs and outputs dense common tensors."""
    import onnx

    kinds = onnx.TensorProto
    common = {kinds.FLOAT16, kinds.FLOAT, kinds.DOUBLE, kinds.BOOL}
    common |= {kinds.INT8, kinds.INT16, kinds.INT32, kinds.INT64}
    common |= {kinds.UINT8, kinds.UINT16, kinds.UINT32, kinds.UINT64}
    values: Iterable[Proto] = [*model.graph.input, *model.graph.output]
    return all(node.domain in ("", "ai.onnx") for node in model.graph.node) and all(
        value.type.WhichOneof("value") == "tensor_type"
        and value.type.tensor_type.elem_type in common
        for value in values
    )
