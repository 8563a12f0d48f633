"""From a fault to the part that causes it."""
