"""What stages are expected to gain: by analysis, by a tuning log, by earlier compilations."""
