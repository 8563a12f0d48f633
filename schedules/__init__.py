"""One file, one schedule rule; the file name is the rule name."""
