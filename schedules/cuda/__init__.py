"""What the rules for GPUs share: tiles of threads, shared memory, tensor cores."""
