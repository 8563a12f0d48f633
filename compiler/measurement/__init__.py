"""Clocks, and peers beside them."""
