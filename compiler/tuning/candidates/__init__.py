"""Candidates built, checked and timed by processes with a deadline."""
