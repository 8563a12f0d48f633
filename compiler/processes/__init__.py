"""Processes of our own: children that answer requests, forks, and what they may import."""
