"""The verbs of the command line: one file is one verb."""
