"""The right answer, by somebody else: ONNX Runtime, or torch eager."""

from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from hybridc.compiler.carriers import CARRIERS
from hybridc.compiler.delegation.runtime_values import ValueSession
from hybridc.compiler.errors import InputError, ModelError, first_line
from hybridc.compiler.frontends.onnx_graph import corners, element_types, liveness, same_padding
from hybridc.compiler.frontends.onnx_graph.model_file import copied
from hybridc.compiler.frontends.onnx_graph.versions import lower_numbers, operators_of
from hybridc.compiler.model import Array, Feed, Reference, as_array

_LOCALE = b"C.UTF-8"
# ONNX Runtime 1.31 takes products with such weights for those of others as it optimises.
_TWO_BITS = frozenset({"int2", "uint2"})


def onnx_reference(source: Path | Any) -> Reference:
    """Compute the outputs of a path's model or an `onnx.ModelProto` on the CPU, in their order.

    ONNX Runtime does it, from the file as it is or with its version numbers lowered to what it
    reads; what it has no kernel for is computed by ONNX's own, slow, reference.  The session is
    made at the first call.  A call raises InputError where the model does not run on its inputs.
    """
    sessions: list[Any] = []

    def run(feed: Feed) -> list[Array]:
        if not sessions:
            sessions.append(_session(source))
        try:
            return [as_array(value) for value in sessions[0].run(None, dict(feed))]
        except Exception as error:  # each library raises classes of its own, not all public
            raise InputError(
                f"the model does not run on the inputs to compare on: {first_line(error)[:200]};"
                " where not every size is possible, fix it by --shape, and where random inputs"
                " make no sense, give some by --calibration"
            ) from error

    return run


def _session(source: Path | Any) -> Any:
    reasons: list[str] = []
    # ONNX Runtime takes no arrays of elements of less than a byte.
    usual: tuple[Callable[[Path | Any], Any], ...] = (
        _as_it_is,
        _as_written,
        _with_older_numbers,
        _in_plain_locale,
        _without_dead_nodes,
        _slow,
    )
    light = _light(source)
    if corners.are_rounded(light) or same_padding.are_misread(light.graph.node):
        usual = (_as_meant, _slow_as_meant)
    if not _TWO_BITS.isdisjoint(element_types.kinds_of(light.graph).values()):
        usual = (_as_written, _slow)
    for road in (_slow,) if _is_narrow(light) else usual:
        try:
            session = road(source)
            by_value = road not in (_slow, _slow_as_meant) and ValueSession.suits(light)
            return ValueSession(session) if by_value else session
        except Exception as error:  # each library raises classes of its own, not all public
            reasons.append(first_line(error, repr(error))[:200])
    raise ModelError(f"no reference can run this model: {reasons[0]}")


def runtime_session(source: Path | Any) -> Any:
    """A session of ONNX Runtime, its version numbers lowered to what it reads.

    Raises what ONNX Runtime raises for a model that it cannot run.
    """
    return _with_older_numbers(source)


def _as_it_is(source: Path | Any) -> Any:
    return _runtime(_given(source), _options(source))


def _as_written(source: Path | Any) -> Any:
    """Without the optimisations, of which that for exact products fails on shared weights."""
    import onnxruntime

    options = _options(source)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return _runtime(_given(source), options)


def _options(source: Path | Any) -> Any:
    """Options under which a model's answers are right: one thread where several would race.

    ONNX Runtime 1.31 adds up scattered rows on all threads, without a lock: of 5000 ones that fell
    on two rows, up to 244 were lost.
    """
    options = session_options()
    if "ScatterND" in operators_of(_light(source)):
        options.intra_op_num_threads = 1
    return options


def _light(source: Path | Any) -> Any:
    """A model without the data that lies beside it."""
    import onnx

    if not isinstance(source, Path):
        return source
    return onnx.load(str(source), format="protobuf", load_external_data=False)


def _is_narrow(proto: Any) -> bool:
    """Whether inputs or outputs have elements of less than a byte."""
    numbers = _numbers(CARRIERS)
    values = [*proto.graph.input, *proto.graph.output]
    return any(value.type.tensor_type.elem_type in numbers for value in values)


def _numbers(names: Iterable[str]) -> set[int]:
    """ONNX's numbers of element types."""
    import onnx

    return {int(onnx.helper.np_dtype_to_tensor_dtype(np.dtype(name))) for name in names}


def _given(source: Path | Any) -> str | bytes:
    """By path where there is one: a model may exceed the 2 GiB that a message can hold."""
    return str(source) if isinstance(source, Path) else bytes(source.SerializeToString())


def _with_older_numbers(source: Path | Any) -> Any:
    return _changed(source, lower_numbers)


def _as_meant(source: Path | Any) -> Any:
    return _changed(source, _write_meaning)


def _slow_as_meant(source: Path | Any) -> Any:
    import onnx

    proto = onnx.load(str(source)) if isinstance(source, Path) else copied(source)
    _write_meaning(proto)
    return _slow(proto)


def _write_meaning(proto: Any) -> None:
    """Write Resize and padding as ONNX means them, which ONNX Runtime computes otherwise."""
    import onnx

    lower_numbers(proto)
    corners.write_out(proto)
    graph = onnx.shape_inference.infer_shapes(proto, data_prop=True).graph
    types = {value.name: value.type for value in [*graph.input, *graph.value_info]}
    for tensor in graph.initializer:
        types[tensor.name] = onnx.helper.make_tensor_type_proto(tensor.data_type, tensor.dims)
    same_padding.write_out(proto.graph.node, types)


def _in_plain_locale(source: Path | Any) -> Any:
    """With the case of letters that Unicode gives them, where a system lacks a model's locale."""

    def change(proto: Any) -> None:
        lower_numbers(proto)
        for node in proto.graph.node:
            if node.op_type == "StringNormalizer":
                kept = [item for item in node.attribute if item.name != "locale"]
                del node.attribute[:]
                node.attribute.extend(kept)
                node.attribute.add(name="locale", s=_LOCALE, type=3)  # text

    return _changed(source, change)


def _without_dead_nodes(source: Path | Any) -> Any:
    """Without the nodes that no output needs, whose operators nobody may know."""

    def change(proto: Any) -> None:
        lower_numbers(proto)
        liveness.leave_out_dead(proto.graph)

    return _changed(source, change)


def _changed(source: Path | Any, change: Callable[[Any], None]) -> Any:
    """A session of a copy of the model."""
    proto = copied(_light(source))
    change(proto)
    options = _options(proto)
    if isinstance(source, Path):
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", str(source.parent.resolve())
        )
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


def _slow(source: Path | Any) -> Any:
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

    model = str(source) if isinstance(source, Path) else source
    return ReferenceEvaluator(model, new_ops=[Cast] if _is_narrow(_light(source)) else None)


def torch_reference(run: Callable[[dict[str, Any]], Any]) -> Reference:
    """Compute with torch eager, without gradients: `run` takes tensors by input name.

    Outputs are flattened in the order of `torch.export`; what is no tensor is left out.
    """

    def reference(feed: Feed) -> list[Array]:
        import torch
        from torch.utils._pytree import tree_leaves

        with torch.no_grad():
            try:
                result = run({name: _to_torch(array) for name, array in feed.items()})
            except Exception as error:  # the model is the user's own code
                raise InputError(
                    f"torch refuses the inputs to compare on: {first_line(error)[:200]};"
                    " where random ones make no sense, give some by calibration="
                ) from error
        return [to_numpy(leaf) for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]

    return reference


@contextmanager
def evaluation_mode(module: Any) -> Generator[None, None, None]:
    """Switch dropout and its like off in a torch module, and leave it as it was."""
    modes = [(part, part.training) for part in module.modules()]
    try:
        for part, _ in modes:
            part.training = False
        yield
    finally:
        for part, training in modes:
            part.training = training


def _to_torch(array: Array) -> Any:
    import torch

    owned = np.array(array, order="C")
    if owned.dtype.name == "bfloat16":  # numpy knows the type only by ml_dtypes, torch by its own
        return torch.from_numpy(owned.view(np.uint16)).view(torch.bfloat16)
    return torch.from_numpy(owned)


def to_numpy(tensor: Any) -> Array:
    """A tensor of torch's as an array; complex numbers are pairs of real ones in a last axis."""
    import ml_dtypes
    import torch

    plain = tensor.detach().cpu().contiguous()
    if plain.is_complex():  # as pairs of real numbers, as models have them
        plain = torch.view_as_real(plain.resolve_conj())
    if plain.dtype == torch.bfloat16:
        array: Array = plain.view(torch.uint16).numpy().view(ml_dtypes.bfloat16)
    else:
        array = plain.numpy()
    return array
