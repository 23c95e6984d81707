"""Replay: one row per observation, windows by index arithmetic."""
