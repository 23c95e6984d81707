"""Slipstream trains transformer policies in online reinforcement learning."""

__version__ = "0.1.0"
