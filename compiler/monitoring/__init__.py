"""What the machine does while something runs, and what happened when."""
