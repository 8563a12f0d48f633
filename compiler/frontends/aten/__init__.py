"""ATen operators by family: each file has a table of DECOMPOSITIONS, of CONVERTERS, or both."""
