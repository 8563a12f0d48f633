"""What went wrong on a GPU, in one line, from what TVM, torch or the driver say of it."""

from hybridc.compiler.errors import InputError, first_line

# Parts of messages of the CUDA runtime and the driver, and what they mean to people.
_TOLD = {
    "out of memory": "the GPU is out of memory: run a smaller batch, or end what else uses it",
    "driver version is insufficient": "NVIDIA's driver is too old for this code",
    "no kernel image is available": "the GPU runs none of this code: compile it for this one",
    "invalid device function": "the GPU runs none of this code: compile it for this one",
    "device kernel image is invalid": "the GPU's driver does not take this code",
    "CUDA_ERROR_NO_BINARY_FOR_GPU": "the GPU runs none of this code: compile it for this one",
}
# After one of these every later call of the process fails as well.
_STICKY = (
    *("illegal memory access", "illegal instruction", "misaligned address", "invalid pc"),
    *("unspecified launch failure", "launch timed out", "hardware stack error", "assert"),
    *("ILLEGAL_ADDRESS", "LAUNCH_FAILED", "ILLEGAL_INSTRUCTION", "MISALIGNED_ADDRESS"),
    *("uncorrectable ECC error", "CUDA_ERROR_UNKNOWN", "context is destroyed"),
)


def told(error: BaseException) -> InputError | None:
    """The error for people, where it is a known one of GPUs; else None."""
    text = str(error)
    for part, meaning in _TOLD.items():
        if part.lower() in text.lower():
            return InputError(meaning)
    if is_sticky(text):
        return InputError(
            f"a kernel failed on the GPU, and this process cannot use it any more:"
            f" {first_line(text)}"
        )
    return None


def is_sticky(text: str) -> bool:
    """Whether a process that met this error has lost its GPU."""
    return "CUDA" in text.upper() and any(part.lower() in text.lower() for part in _STICKY)
