"""What a model is made of, told without compiling it."""
