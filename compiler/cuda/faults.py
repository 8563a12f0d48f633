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
    *("illegal memory access", "illegal instruction", "misaligned address", "program counter"),
    *("unspecified launch failure", "launch timed out", "hardware stack error", "assert"),
    *("ILLEGAL_ADDRESS", "LAUNCH_FAILED", "ILLEGAL_INSTRUCTION", "MISALIGNED_ADDRESS"),
    *("HARDWARE_STACK_ERROR", "INVALID_PC", "INVALID_ADDRESS_SPACE", "LAUNCH_TIMEOUT"),
    *("global/shared address space", "context is destroyed", "CUDA_ERROR_UNKNOWN"),
    *("uncorrectable ECC error", "uncorrectable NVLink error", "unknown error"),
)
# Who tells of it: TVM and torch by the name of CUDA, the driver's calls of ours by its maker's.
_TELLERS = ("CUDA", "NVIDIA")
_LOST = "a kernel failed on the GPU, and this process cannot use it any more"


def told(error: BaseException) -> InputError | None:
    """The error for people, where it is a known one of GPUs; else None."""
    text = str(error)
    for part, meaning in _TOLD.items():
        if part.lower() in text.lower():
            return InputError(meaning)
    if is_sticky(text):
        return InputError(lost(first_line(text)))
    return None


def lost(said: str) -> str:
    """What people read of an error that is sticky."""
    return said if said.startswith(_LOST) else f"{_LOST}: {said}"


def is_sticky(text: str) -> bool:
    """Whether a process that met this error has lost its GPU."""
    told_by = any(name in text.upper() for name in _TELLERS)
    return told_by and any(part.lower() in text.lower() for part in _STICKY)
