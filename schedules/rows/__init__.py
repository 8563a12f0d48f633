"""What the rules of kernels that work row by row share: reductions, norms, softmax, windows."""
