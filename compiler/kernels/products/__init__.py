"""Loop nests of matrix products, and of the convolutions that are products over windows."""
