"""What an artifact is: the file, what is in it, and how it is read and written."""
