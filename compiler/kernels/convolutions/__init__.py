"""Loop nests of convolutions that are more than products over windows."""
