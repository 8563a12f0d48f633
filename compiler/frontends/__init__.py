"""Importers: `onnx_model` and `torch_model` make a model of a file or an object."""
