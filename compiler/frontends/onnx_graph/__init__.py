"""ONNX graphs before they are imported: read, sized, and written in operators that are known."""
