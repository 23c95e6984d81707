"""Trained policies on their own: to act with, to export, to share, to make smaller."""
