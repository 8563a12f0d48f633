"""What a monitor samples: one source in one file, each of which says where it is absent."""
