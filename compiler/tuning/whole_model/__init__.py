"""Points timed in the model that they are for, beside its defaults."""
