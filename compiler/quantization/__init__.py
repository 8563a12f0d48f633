"""Integers in place of floats: ranges, errors, and which operators take them."""
