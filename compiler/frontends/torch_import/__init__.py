"""From an exported torch program to Relax, by way of ONNX or of TVM's own importer."""
