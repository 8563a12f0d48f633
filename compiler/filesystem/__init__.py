"""Files that are whole or not there, files of strangers, and temporary folders."""
