"""What is installed, and what is wrong with it."""
