"""What people read and write on a terminal."""
