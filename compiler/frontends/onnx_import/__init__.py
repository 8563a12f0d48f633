"""From a static ONNX graph to Relax; what cannot be imported is left to ONNX Runtime."""
