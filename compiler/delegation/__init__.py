"""Parts of a model that ONNX Runtime computes inside an artifact."""
