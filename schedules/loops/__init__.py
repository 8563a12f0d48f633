"""Loop nests of any kernel: how they access memory, and what all rules do to them."""
