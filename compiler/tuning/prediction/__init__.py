"""Predictions of what points take: features, analysis, and models that learn from logs."""
