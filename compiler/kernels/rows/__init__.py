"""Loop nests of reductions, scans and sorting."""
