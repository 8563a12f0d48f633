"""The right answer, by somebody else: ONNX Runtime, or torch eager."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from hybridc.compiler.errors import ModelError
from hybridc.compiler.model import Array, Feed, Reference

# The newest that ONNX Runtime 1.31 reads; onnx 1.23 stamps files with IR 14 and opset 28.
_IR_VERSION = 13
_OPSET = 27


def onnx_reference(source: Path | Any) -> Reference:
    """Compute the outputs of a path's model or an `onnx.ModelProto` on the CPU, in their order.

    ONNX Runtime does it, from the file as it is or with its version numbers lowered to what it
    reads; what it has no kernel for is computed by ONNX's own, slow, reference.  The session is
    made at the first call.
    """
    made: list[Any] = []

    def run(feed: Feed) -> list[Array]:
        if not made:
            made.append(_session(source))
        return [np.asarray(value) for value in made[0].run(None, dict(feed))]

    return run


def _session(source: Path | Any) -> Any:
    reasons: list[str] = []
    for road in (_as_it_is, _with_older_numbers, _slow):
        try:
            return road(source)
        except Exception as error:  # each library raises classes of its own, not all public
            reasons.append(str(error).strip().splitlines()[0][:200] if str(error) else repr(error))
    raise ModelError(f"no reference can run this model: {reasons[0]}")


def runtime_session(source: Path | Any) -> Any:
    """A session of ONNX Runtime, its version numbers lowered to what it reads.

    Raises what ONNX Runtime raises for a model that it cannot run.
    """
    return _with_older_numbers(source)


def _as_it_is(source: Path | Any) -> Any:
    # By path where there is one: a model may exceed the 2 GiB that a message can hold.
    model = str(source) if isinstance(source, Path) else source.SerializeToString()
    return _runtime(model, None)


def _with_older_numbers(source: Path | Any) -> Any:
    import onnx

    proto = onnx.ModelProto()
    if isinstance(source, Path):
        proto = onnx.load(str(source), format="protobuf", load_external_data=False)
    else:
        proto.CopyFrom(source)
    proto.ir_version = min(proto.ir_version, _IR_VERSION)
    for opset in proto.opset_import:
        if opset.domain in ("", "ai.onnx"):
            opset.version = min(opset.version, _OPSET)
    return _runtime(proto.SerializeToString(), source.parent if isinstance(source, Path) else None)


def _runtime(model: str | bytes, directory: Path | None) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what it cannot do comes as an exception
    if directory is not None:
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", str(directory.resolve())
        )
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _slow(source: Path | Any) -> Any:
    from onnx.reference import ReferenceEvaluator

    return ReferenceEvaluator(str(source) if isinstance(source, Path) else source)


def torch_reference(run: Callable[[dict[str, Any]], Any]) -> Reference:
    """Compute with torch eager, without gradients: `run` takes tensors by input name.

    Outputs are flattened in the order of `torch.export`; what is no tensor is left out.
    """

    def reference(feed: Feed) -> list[Array]:
        import torch
        from torch.utils._pytree import tree_leaves

        with torch.no_grad():
            result = run({name: _to_torch(array) for name, array in feed.items()})
        return [_to_numpy(leaf) for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]

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


def _to_numpy(tensor: Any) -> Array:
    import ml_dtypes
    import torch

    plain = tensor.detach().cpu().contiguous()
    if plain.dtype == torch.bfloat16:
        array: Array = plain.view(torch.uint16).numpy().view(ml_dtypes.bfloat16)
    else:
        array = plain.numpy()
    return array
