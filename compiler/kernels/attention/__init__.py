"""Loop nests of attention."""
