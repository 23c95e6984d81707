"""What the policy sees of an environment, and what a privileged accelerator sees beside it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import gymnasium as gym
import numpy as np
from tyro.conf import arg

from slipstream.envs.disturbances import DelayObservation, DropObservation, NoiseObservation
from slipstream.envs.masks import MaskObservation, mask_indices, parse_mask, vector_space
from slipstream.errors import SlipstreamError
from slipstream.spec import PRIVILEGED


@dataclass(frozen=True)
class ObservationConfig:
    """What the policy sees: everything by default."""

    mask: Annotated[str, arg(prefix_name=False)] = "none"
    """Components that the policy sees: none hides nothing; paper (HalfCheetah, Hopper, Ant);
    positions or velocities (MuJoCo); or a list such as 0-3,8-12."""
    noise: float = 0.0
    """Standard deviation of Gaussian noise on every component, in the observation's own units."""
    drop: float = 0.0
    """Probability of losing an observation, the one before then being seen again."""
    delay: int = 0
    """Steps by which observations arrive late."""

    def __post_init__(self) -> None:
        """Raise SlipstreamError for a malformed mask or values out of range."""
        parse_mask(self.mask)
        if not 0 <= self.noise < np.inf:
            raise SlipstreamError(f"observe.noise is {self.noise}; it must be finite, at least 0")
        if not 0 <= self.drop <= 1:
            raise SlipstreamError(f"observe.drop is {self.drop}; it must lie in [0, 1]")
        if self.delay < 0:
            raise SlipstreamError(f"observe.delay is {self.delay}; it must be at least 0")

    @property
    def hides(self) -> bool:
        """Whether the policy sees less than there is."""
        return self != ObservationConfig()


def observe(
    env: gym.Env[Any, Any],
    config: ObservationConfig,
    privileged: bool,
    visible: Sequence[int] | None = None,
) -> gym.Env[Any, Any]:
    """Show a policy only what the configuration lets it see.

    The order is that of a real sensor: it measures with noise, a measurement may get lost, and what
    is left arrives late. The mask comes last, so that the components that stay visible have the
    same noise under every mask.

    Args:
        env: an environment with a vector observation (n,).
        config: the mask and the disturbances.
        privileged: keep the full, clean, present observation beside what the policy sees.
        visible: the components that there are for the policy before any mask, which counts among
            them; None for all.

    Returns:
        `env` itself where there is nothing to do. Else an environment that shows the policy's
        vector (m,), or with `privileged` `{"state": (m,), "privileged": (n,)}`; m <= n. An
        episode's last observation is treated like all others.

    Raises:
        SlipstreamError: the observation is not a vector (of floats, for noise), or the mask does
            not fit.
    """
    if not privileged and visible is None and config == ObservationConfig():
        return env
    vector_space(env)
    clean = None
    if privileged:
        clean = env = _Clean(env)
    if visible is not None:
        env = MaskObservation(env, visible)
    if config.noise > 0:
        env = NoiseObservation(env, config.noise)
    if config.drop > 0:
        env = DropObservation(env, config.drop)
    if config.delay > 0:
        env = DelayObservation(env, config.delay)
    if config.mask != "none":
        env = MaskObservation(env, mask_indices(config.mask, env))
    return env if clean is None else _Privileged(env, clean)


class _Clean(gym.ObservationWrapper[np.ndarray, Any, np.ndarray]):
    """Remembers the present observation before anything is done to it."""

    present: np.ndarray

    def observation(self, observation: np.ndarray) -> np.ndarray:
        self.present = observation
        return observation


class _Privileged(gym.ObservationWrapper[Any, Any, np.ndarray]):
    """Shows the policy's observation as `state` and the clean one as `privileged`."""

    def __init__(self, env: gym.Env[np.ndarray, Any], clean: _Clean) -> None:
        super().__init__(env)
        self._clean = clean
        self.observation_space = gym.spaces.Dict(
            {"state": env.observation_space, PRIVILEGED: clean.observation_space}
        )

    def observation(self, observation: np.ndarray) -> dict[str, np.ndarray]:
        # A copy: an environment may write into its array again.
        return {"state": observation, "privileged": np.array(self._clean.present)}
