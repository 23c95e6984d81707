"""Judging: evaluation, what follows from it, and what there is to see of it."""
