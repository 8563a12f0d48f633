"""The tuning log: every measurement ever made, kept by the content of what was measured."""
