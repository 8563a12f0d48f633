"""Control strategies, one file each: in which order stages are tried, and when that ends."""
