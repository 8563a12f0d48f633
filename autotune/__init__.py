"""One file, one search strategy; the file name is the strategy name."""
