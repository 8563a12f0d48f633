"""What the machine offers, as told by the operating system and as measured."""
