"""Options, from files, Python and the command line, and the plan made of them."""
