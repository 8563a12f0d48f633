"""What is told of a compilation: text, data and pages."""
