"""The CPUs that kernels are compiled for and run on."""

from hybridc.compiler import target
from hybridc.compiler.hardware.narrow import INSTRUCTIONS
from hybridc.compiler.target import Target


def _kernels_of(cpu: Target) -> tuple[float, ...]:
    """What kernels for a CPU depend on: its vectors, and its instructions for narrow types."""
    return (cpu.vector_bits, *(cpu.faster(precision) for precision in INSTRUCTIONS))


def _distinct() -> tuple[str, ...]:
    """This CPU, and the least that is supported where kernels for that are others."""
    here, least = (_kernels_of(target.parse(name)) for name in ("cpu", "avx2"))
    return ("cpu",) if here == least else ("cpu", "avx2")


CPUS = _distinct()
