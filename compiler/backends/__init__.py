"""Vendor libraries that may compute a kernel, one a file."""
