"""Loop nests of pooling and resizing."""
