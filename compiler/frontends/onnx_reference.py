"""The right answer of an ONNX model, by somebody else: ONNX Runtime, or ONNX's own reference."""

import math
import re
import textwrap
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from hybridc.compiler.delegation.runtime_values import ValueSession
from hybridc.compiler.errors import InputError, ModelError, first_line
from hybridc.compiler.frontends.onnx_graph import (
    choices,
    element_types,
    first_opsets,
    liveness,
    meaning,
)
from hybridc.compiler.frontends.onnx_graph.model_file import copied
from hybridc.compiler.frontends.onnx_graph.versions import lower_numbers, operators_of
from hybridc.compiler.model import Array, Feed, as_array
from hybridc.compiler.runtime.carriers import CARRIERS

_LOCALE = b"C.UTF-8"
_DATA_BESIDE = "session.model_external_initializers_file_folder_path"
# ONNX Runtime 1.31 takes products with such weights for those of others as it optimises.
_TWO_BITS = frozenset({"int2", "uint2"})


# Elements from which weights are worth reading again rather than holding for as long as a
# compilation takes: ONNX Runtime reads 256 MB in some 0.2 s.
_BULK = 2**26
# How ONNX Runtime and numpy say that there is no memory.
_NO_ROOM = re.compile(r"bad_alloc|AllocateRawInternal|Unable to allocate|Failed to allocate")


class OnnxReference:
    """Computes the outputs of a path's model or an `onnx.ModelProto` on the CPU, in their order.

    ONNX Runtime does it, from the file as it is or with its version numbers lowered to what it
    reads; what it has no kernel for is computed by ONNX's own, slow, reference.
    """

    def __init__(self, source: Path | Any) -> None:
        self._given = _Given(source)
        self._session: Any = None

    def __call__(self, feed: Feed) -> list[Array]:
        """The outputs; the session is made at the first call.

        Raises InputError if the model does not run on these inputs.
        """
        if self._session is None:
            self._session = _session(self._given)
        try:
            return [as_array(value) for value in self._session.run(None, dict(feed))]
        except Exception as error:  # each library raises classes of its own, not all public
            if _NO_ROOM.search(str(error)):
                raise InputError(
                    "the model takes more memory on the inputs used for comparison than this"
                    " process can have: give smaller sizes (--shape)"
                ) from error
            raise InputError(
                f"the model does not run on the inputs used for comparison: {_refusal(error)};"
                " if not every size is possible, fix it with --shape; if random inputs"
                " make no sense, give some with --calibration"
            ) from error

    def release(self) -> None:
        """Give back the memory of a model with many weights; the next call reads them again."""
        if self._elements() >= _BULK:
            self._session = None

    def rounded(self, move: Callable[[Array], Array], seed: int = 0) -> "OnnxReference | None":
        """The same model with each matrix of weights moved; None if they are too many to copy.

        Vectors stay: among them are scales of images, by which sizes are computed.  With a `seed`,
        what operators choose by is off by some roundings, too.
        """
        import onnx

        if self._elements() >= _BULK:
            return None
        source = self._given.source
        proto = onnx.load(str(source)) if isinstance(source, Path) else copied(source)
        for tensor in proto.graph.initializer:
            if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) > 1:
                moved = move(onnx.numpy_helper.to_array(tensor))
                tensor.CopyFrom(onnx.numpy_helper.from_array(moved, tensor.name))
        if seed:
            choices.unsettle(proto, seed)
        return OnnxReference(proto)

    def _elements(self) -> int:
        return sum(math.prod(each.dims) for each in self._given.light.graph.initializer)


def _refusal(error: Exception) -> str:
    """What ONNX Runtime says of its inputs, without the places in its own source."""
    said = re.sub(r"/onnxruntime_src/\S+ .* was false\. ", "", first_line(error))
    return textwrap.shorten(said, 300, placeholder=" …")


@dataclass(frozen=True)
class _Given:
    """A model by its path or as a proto."""

    source: Path | Any

    @cached_property
    def light(self) -> Any:
        """The model without the data that lies beside it."""
        import onnx

        if not isinstance(self.source, Path):
            return self.source
        return onnx.load(str(self.source), format="protobuf", load_external_data=False)

    def content(self) -> str | bytes:
        """By path where there is one: a model may exceed the 2 GiB that a message can hold."""
        if isinstance(self.source, Path):
            return str(self.source)
        return bytes(self.source.SerializeToString())


def _session(given: _Given) -> Any:
    reasons = list[str]()
    # ONNX Runtime takes no arrays of elements of less than a byte.
    usual: tuple[Callable[[_Given], Any], ...] = (
        _as_it_is,
        _as_written,
        _with_older_numbers,
        _in_plain_locale,
        _without_dead_nodes,
        _slow,
    )
    light = given.light
    if meaning.is_misread(light):
        usual = (_as_meant, _slow_as_meant)
    if not _TWO_BITS.isdisjoint(element_types.kinds_of(light.graph).values()):
        usual = (_as_written, _slow)
    for road in (_slow,) if _is_narrow(light) else usual:
        try:
            session = road(given)
            by_value = road not in (_slow, _slow_as_meant) and ValueSession.suits(light)
            return ValueSession(session) if by_value else session
        except Exception as error:  # each library raises classes of its own, not all public
            reasons.append(first_line(error, repr(error))[:200])
    raise ModelError(f"no reference can run this model: {reasons[0]}")


def runtime_session(source: Path | Any) -> Any:
    """A session of ONNX Runtime, its version numbers lowered to what it reads.

    Raises what ONNX Runtime raises for a model that it cannot run.
    """
    return _with_older_numbers(_Given(source))


def _as_it_is(given: _Given) -> Any:
    return _runtime(given.content(), _options(given.light))


def _as_written(given: _Given) -> Any:
    """Without the optimisations, of which that for exact products fails on shared weights."""
    import onnxruntime

    options = _options(given.light)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return _runtime(given.content(), options)


def _options(proto: Any) -> Any:
    """Options under which a model's answers are right: one thread where several would race.

    ONNX Runtime 1.31 adds up scattered rows on all threads, without a lock: of 5000 ones that fell
    on two rows, up to 244 were lost.
    """
    options = session_options()
    if "ScatterND" in operators_of(proto):
        options.intra_op_num_threads = 1
    return options


def _is_narrow(proto: Any) -> bool:
    """Whether inputs or outputs have elements of less than a byte."""
    numbers = _numbers(CARRIERS)
    values = [*proto.graph.input, *proto.graph.output]
    return any(value.type.tensor_type.elem_type in numbers for value in values)


def _numbers(names: Iterable[str]) -> set[int]:
    """ONNX's numbers of element types."""
    import onnx

    return {int(onnx.helper.np_dtype_to_tensor_dtype(np.dtype(name))) for name in names}


def _with_older_numbers(given: _Given) -> Any:
    return _changed(given, lower_numbers)


def _as_meant(given: _Given) -> Any:
    return _changed(given, meaning.write_out)


def _slow_as_meant(given: _Given) -> Any:
    import onnx

    source = given.source
    proto = onnx.load(str(source)) if isinstance(source, Path) else copied(source)
    meaning.write_out(proto)
    return _slow(_Given(proto))


def _in_plain_locale(given: _Given) -> Any:
    """With the case of letters that Unicode gives them, where a system lacks a model's locale."""

    def change(proto: Any) -> None:
        lower_numbers(proto)
        for node in proto.graph.node:
            if node.op_type == "StringNormalizer":
                kept = [item for item in node.attribute if item.name != "locale"]
                del node.attribute[:]
                node.attribute.extend(kept)
                node.attribute.add(name="locale", s=_LOCALE, type=3)  # text

    return _changed(given, change)


def _without_dead_nodes(given: _Given) -> Any:
    """Without the nodes that no output needs, whose operators nobody may know."""

    def change(proto: Any) -> None:
        lower_numbers(proto)
        liveness.leave_out_dead(proto.graph)

    return _changed(given, change)


def _changed(given: _Given, change: Callable[[Any], None]) -> Any:
    """A session of a copy of the model."""
    proto = copied(given.light)
    change(proto)
    options = _options(proto)
    if isinstance(given.source, Path):
        options.add_session_config_entry(_DATA_BESIDE, str(given.source.parent.resolve()))
    return _runtime(proto.SerializeToString(), options)


def _runtime(model: str | bytes, options: Any) -> Any:
    import onnxruntime

    # With its fallback, which is the same provider, it writes failures to stdout.
    return onnxruntime.InferenceSession(
        model, options, providers=["CPUExecutionProvider"], enable_fallback=0
    )


def session_options() -> Any:
    """Options of an ONNX Runtime session whose answers are right on every CPU.

    Without VNNI its products of uint8 by int8 add pairs in 16 bits, which overflow; the entry
    makes it take others.  It acts through a graph optimisation, so these have to stay on.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what it cannot do comes as an exception
    options.add_session_config_entry("session.x64quantprecision", "1")
    # By default products with weights of 4 bits round the other operand to 8 bits.
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    return options


def _slow(given: _Given) -> Any:
    from onnx.reference import ReferenceEvaluator
    from onnx.reference.op_run import OpRun
    from onnx.reference.ops.op_cast import cast_to

    class Cast(OpRun):
        """ONNX's cast, which rounds to int4 and int2 as ONNX's text says; its own truncates."""

        def _run(self, x: Any, to: int = 1, saturate: int = 1, round_mode: str = "up") -> Any:
            narrow = to in _numbers(CARRIERS) and np.asarray(x).dtype.kind == "f"
            whole = narrow and to not in _numbers(["float4_e2m1fn"])
            convert: Any = cast_to
            return (convert(np.rint(x) if whole else x, to, bool(saturate), round_mode),)

    model = str(given.source) if isinstance(given.source, Path) else given.source
    own = first_opsets.reference_operators(given.light)
    return ReferenceEvaluator(model, new_ops=[*own, *([Cast] if _is_narrow(given.light) else [])])
