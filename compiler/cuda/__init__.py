"""NVIDIA GPUs: what they offer, the compilers of their code, and the driver of this host."""
