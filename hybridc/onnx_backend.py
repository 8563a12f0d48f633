"""hybridc as an ONNX backend: `import hybridc.onnx_backend as backend`."""

from hybridc.compiler.conformance.onnx_backend import (
    HybridcBackend,
    Prepared,
    is_compatible,
    prepare,
    run_model,
    run_node,
    supports_device,
)

__all__ = [
    "HybridcBackend",
    "Prepared",
    "is_compatible",
    "prepare",
    "run_model",
    "run_node",
    "supports_device",
]
