"""What the libraries of NVIDIA GPUs share."""

TYPES = ("float16", "bfloat16", "float32")
# Seconds of a launch by way of Python, during which a GPU may have nothing to do.
OVERHEAD = 1e-5


def missing(absent: str) -> str:
    """Why torch computes nothing on a GPU here; `absent` is what is not installed of it."""
    if absent:
        return absent
    import torch

    if torch.version.cuda is None:
        return f"torch {torch.__version__} is a build without CUDA"
    if not torch.cuda.is_available():
        return f"torch {torch.__version__} finds no GPU that it can use"
    return ""
