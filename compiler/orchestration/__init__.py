"""From options to the best candidate: stages, budgets, predictions, decisions."""
