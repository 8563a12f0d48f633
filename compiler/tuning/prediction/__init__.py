"""What is expected of points before they are measured: features, and models that learn from logs."""
