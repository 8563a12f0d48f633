"""hybridc as an ONNX backend (`onnx.backend.base.Backend`), so that ONNX's test runner can use it.

Models are compiled with static shapes: dynamic axes get the sizes of the first inputs, and inputs
that decide shapes (axes, sizes, paddings) their values.  For others the model is compiled again.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx.backend.base import Backend, BackendRep

from hybridc.compiler.errors import InputError
from hybridc.compiler.model import Array, as_array

Proto = Any  # a message of onnx; the library ships no types for them
Inputs = Sequence[Any] | Mapping[str, Any]


class Prepared(BackendRep):
    """A model that is compiled when it is called, once for each combination of shapes.

    With `fallback`, ONNX Runtime computes what cannot be compiled.
    """

    def __init__(self, model: Proto, fallback: bool = True) -> None:
        from hybridc.compiler.frontends.onnx_graph import static_inputs

        self._model, self._fallback = model, fallback
        initialised = {tensor.name for tensor in model.graph.initializer}
        self._names = [v.name for v in model.graph.input if v.name not in initialised]
        self.deciding = static_inputs.deciding(model)
        self._sessions: dict[Any, Any] = {}

    def run(self, inputs: Inputs, **kwargs: Any) -> tuple[Array, ...]:
        """Compute the outputs from a list of values, or from values by input name.

        A value is an array, a list for a sequence, or None for an empty optional.  Raises
        ModelError if the model cannot be compiled, and InputError if it has no such inputs.
        """
        del kwargs  # ONNX's runner passes those of `prepare` again
        feed = self._by_name(inputs)
        constants = {name: feed.pop(name) for name in self.deciding & feed.keys()}
        key = (
            tuple((name, np.shape(value)) for name, value in feed.items() if _is_array(value)),
            tuple((name, value.tobytes()) for name, value in sorted(constants.items())),
        )
        if key not in self._sessions:
            self._sessions[key] = self._compiled(feed, constants)
        return tuple(self._sessions[key].run(None, feed))

    def regions(self) -> tuple[str, ...]:
        """The names of the regions that ONNX Runtime computes, in what was compiled so far."""
        held = (session.artifact.regions for session in self._sessions.values())
        return tuple(region.name for regions in held for region in regions)

    def _by_name(self, inputs: Inputs) -> dict[str, Any]:
        if isinstance(inputs, Mapping):
            return {name: as_array(value) for name, value in inputs.items()}
        if len(inputs) > len(self._names):
            known = ", ".join(self._names)
            raise InputError(f"{len(inputs)} inputs given; the model has {known}")
        return {n: as_array(value) for n, value in zip(self._names, inputs, strict=False)}

    def _compiled(self, feed: Mapping[str, Any], constants: Mapping[str, Array]) -> Any:
        from hybridc.compiler import driver
        from hybridc.compiler.configuration import plans
        from hybridc.compiler.frontends.onnx_graph import static_inputs
        from hybridc.compiler.runtime.session import InferenceSession

        proto = static_inputs.fixed(self._model, constants)
        shapes = {
            value.name: feed[value.name].shape
            for value in proto.graph.input
            if value.type.HasField("tensor_type") and _is_array(feed.get(value.name))
        }
        # Whoever runs a test compares the answers by a rule of its own.
        options = plans.Options(verify="off", threads=1, fallback=self._fallback)
        outcome = driver.compile_source(proto, options, shapes)
        return InferenceSession(outcome.artifact, 1)


class HybridcBackend(Backend):
    """The functions that ONNX expects of a backend."""

    @classmethod
    def prepare(cls, model: Proto, device: str = "CPU", **kwargs: Any) -> Prepared:
        """Read a model, which is compiled when it is run.  Raises InputError for another device.

        With `fallback=False`, operators that ONNX Runtime would compute are refused.
        """
        if not cls.supports_device(device):
            raise InputError(f"device {device!r} is not supported; known: CPU")
        return Prepared(model, bool(kwargs.get("fallback", True)))

    @classmethod
    def run_node(
        cls,
        node: Proto,
        inputs: Inputs,
        device: str = "CPU",
        outputs_info: Any = None,
        **kwargs: Any,
    ) -> tuple[Array, ...]:
        """Compute one node of a standard operator, of `opset_version` or the newest.

        With `fallback=False`, operators that ONNX Runtime would compute are refused.
        """
        import onnx

        del outputs_info
        names = [name for name in node.input if name]
        feed = inputs if isinstance(inputs, Mapping) else dict(zip(names, inputs, strict=True))
        fed = [_described(name, np.asarray(feed[name])) for name in names]
        written = [onnx.ValueInfoProto(name=name) for name in node.output if name]
        graph = onnx.helper.make_graph([node], node.op_type, fed, written)
        version = kwargs.get("opset_version", onnx.defs.onnx_opset_version())
        opsets = [onnx.helper.make_opsetid("", version)]
        model = onnx.helper.make_model(graph, opset_imports=opsets)
        known = onnx.shape_inference.infer_shapes(model)
        return cls.prepare(known, device, fallback=kwargs.get("fallback", True)).run(feed)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """Only the CPU is supported."""
        return bool(device.split(":", maxsplit=1)[0] == "CPU")


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray)


def _described(name: str, array: Array) -> Proto:
    import onnx

    kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
    return onnx.helper.make_tensor_value_info(name, kind, array.shape)


prepare = HybridcBackend.prepare
run_model = HybridcBackend.run_model
run_node = HybridcBackend.run_node
supports_device = HybridcBackend.supports_device
is_compatible = HybridcBackend.is_compatible
