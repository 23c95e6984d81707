"""A policy that nobody trained: swings up Pendulum-v1 by its energy, then balances it."""

import numpy as np


def act(obs):
    """One observation [cos, sin, velocity] -> one action [torque] in the environment's units."""
    cos, sin, velocity = obs
    angle = np.arctan2(sin, cos)  # 0 is upright
    if cos > 0.95 and abs(velocity) < 2:
        torque = -10 * angle - 2 * velocity
    else:
        missing = 5 * (1 - cos) - velocity**2 / 6  # energy that it lacks to stand upright
        torque = 2 * np.sign(velocity or 1) * np.sign(missing)
    return [np.clip(torque, -2, 2)]
