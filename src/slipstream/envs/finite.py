"""What to say of a reward or an observation that is not finite."""

from collections.abc import Mapping

import numpy as np

from slipstream.envs.arrays import Array
from slipstream.envs.spaces import to_numpy
from slipstream.errors import SlipstreamError

_UNSTABLE = (
    "mend the environment, or pass a function that returns it wrapped so that the episode ends or "
    "the value is clipped"
)


def check_reward(env_id: str, reward: np.ndarray, steps: np.ndarray) -> None:
    """Refuse rewards that are not finite as float32.

    Args:
        env_id: name for the error message.
        reward: (N,) float64.
        steps: (N,) at which step of its episode each environment is.

    Raises:
        SlipstreamError: one is not finite.
    """
    finite = np.abs(reward) <= np.finfo(np.float32).max  # also false for NaN
    if finite.all():
        return
    i = int(np.argmin(finite))
    raise SlipstreamError(
        f"{env_id} returned the reward {reward[i]} in environment {i} at step "
        f"{steps[i]} of its episode: {_UNSTABLE}"
    )


def refuse_obs(
    env_id: str, obs: Mapping[str, Array], steps: np.ndarray, first: np.ndarray | None
) -> None:
    """Say what is not finite in observations of which it is known that something is not.

    Args:
        env_id: name for the error message.
        obs: key -> (N, *).
        steps: (N,) at which step of its episode each environment is.
        first: (N,) bool, the rows that are the first of their episode instead; None for none.

    Raises:
        SlipstreamError: the first such component.
    """
    for key, value in ((key, to_numpy(value)) for key, value in obs.items()):
        if value.dtype != np.float32 or np.isfinite(value).all():
            continue
        i, *component = np.argwhere(~np.isfinite(value))[0].tolist()
        step = 0 if first is not None and first[i] else steps[i]
        raise SlipstreamError(
            f"{env_id} returned {value[(i, *component)]} in component {component[0]} "
            f"of the observation {key!r} in environment {i} at step {step} of its episode: "
            f"{_UNSTABLE}"
        )
