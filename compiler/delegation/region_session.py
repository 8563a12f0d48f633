"""ONNX Runtime for one region: its session."""

from contextlib import suppress
from typing import Any

from hybridc.compiler.delegation.host_operators import host_names
from hybridc.compiler.delegation.mixed_session import MixedSession
from hybridc.compiler.delegation.runtime_values import first, ort_value
from hybridc.compiler.errors import ArtifactError
from hybridc.compiler.frontends.onnx_reference import session_options
from hybridc.compiler.model import Region

_QUIET = 4  # what goes wrong comes as an exception; nothing is written to the screen
_NOWHERE = "/nonexistent"  # where external data would be looked for: all of it is given in memory


def open_session(region: Region, threads: int) -> Any:
    """Load a region into ONNX Runtime, with its weights where they lie.

    What Python computes of it goes beside.  Raises ArtifactError if ONNX Runtime is missing or
    does not take the region.
    """
    if host_names(region.operators):
        return MixedSession(region, lambda part: _open_whole(part, threads))
    return _open_whole(region, threads)


def _open_whole(region: Region, threads: int) -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise ArtifactError(
            "this model has parts that only ONNX Runtime computes, which is not installed: "
            "pip install onnxruntime"
        ) from None
    try:
        return _open(region, threads, onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL)
    except Exception as error:  # its classes are not public
        with suppress(Exception):
            # The optimisation that makes products exact fails where products share weights.
            return _open(region, threads, onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL)
        raise ArtifactError(
            f"ONNX Runtime {onnxruntime.__version__} does not take {region.name}: {first(error)}"
        ) from error


def _open(region: Region, threads: int, level: Any) -> Any:
    """A session whose workers do not spin between calls: the kernels around need the cores."""
    import onnxruntime

    options = session_options()
    options.log_severity_level = _QUIET
    options.graph_optimization_level = level
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    for key in ("session.intra_op.allow_spinning", "session.inter_op.allow_spinning"):
        options.add_session_config_entry(key, "0")
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", _NOWHERE
    )
    if held := {name: ort_value(array) for name, array in region.weights.items()}:
        options.add_external_initializers(list(held), list(held.values()))
    # With its fallback, which is the same provider, it writes failures to stdout.
    return onnxruntime.InferenceSession(
        region.proto, options, providers=["CPUExecutionProvider"], enable_fallback=0
    )
