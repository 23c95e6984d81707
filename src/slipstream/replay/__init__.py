"""Replay: storage of experience and the windows drawn from it."""

from slipstream.replay.buffer import ReplayBuffer

__all__ = ["ReplayBuffer"]
