"""Search strategies compared on recorded sweeps, without hardware."""
