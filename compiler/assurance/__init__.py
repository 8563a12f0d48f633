"""What is promised of an artifact: limits, samples, comparison, certificate."""
