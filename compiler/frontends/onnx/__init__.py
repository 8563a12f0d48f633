"""Our own converters of ONNX operators, a file for each family."""
