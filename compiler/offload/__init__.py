"""Kernels that vendor libraries compute inside an artifact: found, measured, called."""
