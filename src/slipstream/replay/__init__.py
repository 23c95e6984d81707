"""Replay: storage of experience and the windows drawn from it."""

from slipstream.replay.buffer import ReplayBuffer
from slipstream.replay.placement import Placement

__all__ = ["Placement", "ReplayBuffer"]
