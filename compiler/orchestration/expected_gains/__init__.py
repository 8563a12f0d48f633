"""What stages are expected to gain: by analysis, a tuning log, and earlier compilations."""
