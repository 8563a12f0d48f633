"""The tuning log: every measurement ever made, by the content of what was measured."""
