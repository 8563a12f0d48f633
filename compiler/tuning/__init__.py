"""Tuning: candidates measured in processes of their own, and trials spent where they pay."""
