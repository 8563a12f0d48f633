"""What an ONNX model of our own tells of where it comes from."""

from hybridc.compiler.frontends.onnx_graph.model_file import Proto

_KEY, _TORCH = "hybridc.computes_as", "torch"


def tell_torch(proto: Proto) -> None:
    """Note in a model's metadata that it was exported from torch, to compute as torch does."""
    proto.metadata_props.add(key=_KEY, value=_TORCH)


def is_of_torch(proto: Proto) -> bool:
    """Whether that is noted; in the models of others it is not, whoever exported them."""
    return any((each.key, each.value) == (_KEY, _TORCH) for each in proto.metadata_props)
