"""The models on disk in the onnx wheel: small ones with stored data, and nine light CNNs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from hybridc.compiler.conformance import onnx_cases
from hybridc.compiler.conformance.comparison import Tolerance
from hybridc.compiler.conformance.suite import Entry, Result, Suite

_KINDS = ("simple", "pytorch-converted", "pytorch-operator")
_LIGHT = "light"
_LIGHT_TOLERANCE = Tolerance(1e-3, 1e-7)  # of ONNX's loader where a case names none


@dataclass(frozen=True)
class OnnxModels(Suite):
    """ONNX's tests of whole models: simple, converted from PyTorch, light CNNs.

    The options are those of `onnx-node`.
    """

    engine: str = "hybridc"
    fallback: bool = True

    packages = ("onnx",)
    warm_up = ("test_Linear",)

    @cached_property
    def _cases(self) -> dict[str, Any]:
        from onnx.backend.test.loader import load_model_tests

        return {case.name: case for kind in _KINDS for case in load_model_tests(kind=kind)}

    def entries(self, core: bool) -> Sequence[Entry]:
        """The models by name, each counted under its folder; the core is all of them."""
        del core
        stored = [Entry(name, case.kind) for name, case in self._cases.items()]
        light = [Entry(path.stem, _LIGHT) for path in _light_folder().glob("*.onnx")]
        return sorted([*stored, *light], key=lambda entry: (entry.group, entry.name))

    def examine(self, name: str) -> Result:
        """Run one model."""
        case = self._stored(name) if name in self._cases else _light(name)
        return onnx_cases.examine(case, self.engine, self.fallback)

    def _stored(self, name: str) -> onnx_cases.Case:
        import onnx

        case = self._cases[name]
        folder = Path(case.model_dir)
        model = onnx.load(folder / "model.onnx")
        sides = ("input", model.graph.input), ("output", model.graph.output)
        sets: Any = [
            tuple(list(_tensors(data, *side)) for side in sides)
            for data in sorted(folder.glob("test_data_set_*"))
        ]
        return onnx_cases.Case(model, sets, Tolerance(case.rtol, case.atol))


def _tensors(folder: Path, kind: str, values: Sequence[Any]) -> Iterator[Any]:
    import onnx

    count = len(list(folder.glob(f"{kind}_*.pb")))
    for index in range(count):
        content = (folder / f"{kind}_{index}.pb").read_bytes()
        sequence = index < len(values) and values[index].type.HasField("sequence_type")
        message = onnx.SequenceProto() if sequence else onnx.TensorProto()
        message.ParseFromString(content)
        yield message


def _light(name: str) -> onnx_cases.Case:
    """A light CNN on the ramp that its stored outputs were made from."""
    import onnx

    path = _light_folder() / f"{name}.onnx"
    model = onnx.load(path)
    initialised = {tensor.name for tensor in model.graph.initializer}
    inputs: list[Any] = []
    for value in model.graph.input:
        if value.name not in initialised:
            shape = [dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim]
            count = int(np.prod(shape))
            inputs.append((np.arange(count).reshape(shape) / count).astype(np.float32))
    outputs: list[Any] = []
    for index in range(len(model.graph.output)):
        tensor = onnx.TensorProto()
        tensor.ParseFromString(path.with_name(f"{name}_output_{index}.pb").read_bytes())
        outputs.append(tensor)
    return onnx_cases.Case(model, [(inputs, outputs)], _LIGHT_TOLERANCE)


def _light_folder() -> Path:
    from onnx.backend.test.loader import DATA_DIR

    return Path(DATA_DIR) / _LIGHT
