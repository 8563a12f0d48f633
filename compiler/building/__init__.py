"""From a finished module to machine code, and to an artifact that nobody has measured yet."""
