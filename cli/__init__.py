"""One file, one verb of the command line; the file name is the verb."""
