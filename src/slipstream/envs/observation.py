"""What the policy sees of an environment, and what a privileged accelerator sees beside it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import gymnasium as gym
import numpy as np
from tyro.conf import arg

from slipstream.envs.disturbances import DelayObservation, DropObservation, NoiseObservation
from slipstream.envs.masks import (
    MaskObservation,
    describe,
    env_name,
    mask_indices,
    parse_mask,
)
from slipstream.errors import SlipstreamError
from slipstream.settings import NotNegative, Rate, Settings, Share
from slipstream.spec import PRIVILEGED


@dataclass(frozen=True)
class ObservationConfig(Settings, section="env.observe"):
    """What the policy sees: everything by default."""

    mask: Annotated[str, arg(prefix_name=False)] = "none"
    """Components that the policy sees: none hides nothing; paper (HalfCheetah, Hopper, Ant);
    positions or velocities (MuJoCo); or a list such as 0-3,8-12."""
    noise: Rate = 0.0
    """Standard deviation of Gaussian noise on every component of the state, in its own units."""
    drop: Share = 0.0
    """Probability of losing an observation, images included, the one before being seen again."""
    delay: NotNegative = 0
    """Steps by which observations arrive late, images included."""

    def __post_init__(self) -> None:
        """Raise SlipstreamError for a malformed mask."""
        super().__post_init__()
        parse_mask(self.mask)

    @property
    def hides(self) -> bool:
        """Whether the policy sees less than there is."""
        return self != ObservationConfig()


def observe(
    env: gym.Env[Any, Any],
    config: ObservationConfig,
    privileged: bool,
    visible: Sequence[int] | None = None,
    look: Callable[[gym.Env[Any, Any]], gym.Env[Any, Any]] | None = None,
) -> gym.Env[Any, Any]:
    """Show a policy only what the configuration lets it see.

    The order is that of a real sensor: it measures with noise, a measurement may get lost, and what
    is left arrives late. The mask falls on what was measured with noise, so that the components
    that stay visible have the same noise under every mask. Images have no noise and no mask; they
    are lost and late together with the vectors of the same step.

    Args:
        env: an environment with a vector observation (n,), or a dict of vectors and images. Of a
            dict every vector gets noise, and `state`, or its only vector, is masked.
        config: the mask and the disturbances.
        privileged: keep the full, clean, present observation beside what the policy sees. Where
            the environment has a key `privileged` of its own, that is kept as it is instead.
        visible: the components that there are for the policy before any mask, which counts among
            them; None for all.
        look: makes the environment one that shows images of the present, too; None leaves it.

    Returns:
        `env` itself where there is nothing to do. Else an environment that shows the policy's
        vector (m,), or with `privileged` `{"state": (m,), "privileged": (n,)}`; m <= n; a dict
        keeps its keys. An episode's last observation is treated like all others.

    Raises:
        SlipstreamError: the observation is not as above (of floats, for noise), or the mask does
            not fit.
    """
    space = env.observation_space
    if isinstance(space, gym.spaces.Dict) and set(space.spaces) == {PRIVILEGED}:
        raise SlipstreamError(
            f"{env_name(env)} shows the policy nothing: '{PRIVILEGED}' is for the privileged "
            "networks alone; have it show another key beside it"
        )
    clean = None
    if privileged:
        clean = env = _Clean(env)
    if visible is not None:
        env = MaskObservation(env, visible)
    if config.noise > 0:
        env = NoiseObservation(env, config.noise)
    if config.mask != "none":
        env = MaskObservation(env, mask_indices(config.mask, env))
    if look is not None:
        env = look(env)
    if config.drop > 0:
        env = DropObservation(env, config.drop)
    if config.delay > 0:
        env = DelayObservation(env, config.delay)
    return env if clean is None else _Privileged(env, clean)


class _Clean(gym.ObservationWrapper[Any, Any, Any]):
    """Remembers what is privileged of the present observation, before anything is done to it.

    That is the observation itself, or its key `privileged`, which it takes out.
    """

    present: np.ndarray

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        space = env.observation_space
        self._takes_out = isinstance(space, gym.spaces.Dict) and PRIVILEGED in space.spaces
        if isinstance(space, gym.spaces.Dict) and self._takes_out:
            shown = dict(space.items())
            self.privileged_space = shown.pop(PRIVILEGED)
            self.observation_space = gym.spaces.Dict(shown)
        elif isinstance(space, gym.spaces.Box) and len(space.shape) == 1:
            self.privileged_space = space
        else:
            raise SlipstreamError(
                f"{env_name(env)} has {describe(space)}, in which nothing is privileged: that is a "
                f"vector of which the policy sees a part, or a key '{PRIVILEGED}' of a Dict beside "
                "what the policy sees; have the environment show it, or leave out --privileged"
            )

    def observation(self, observation: Any) -> Any:
        if not self._takes_out:
            self.present = observation
            return observation
        shown = dict(observation)
        self.present = shown.pop(PRIVILEGED)
        return shown


class _Privileged(gym.ObservationWrapper[Any, Any, Any]):
    """Shows the policy's observation, a vector as `state`, and beside it what is `privileged`."""

    def __init__(self, env: gym.Env[Any, Any], clean: _Clean) -> None:
        super().__init__(env)
        self._clean = clean
        space = env.observation_space
        shown = dict(space.items()) if isinstance(space, gym.spaces.Dict) else {"state": space}
        self.observation_space = gym.spaces.Dict({**shown, PRIVILEGED: clean.privileged_space})

    def observation(self, observation: Any) -> dict[str, np.ndarray]:
        shown = observation if isinstance(observation, Mapping) else {"state": observation}
        # A copy: an environment may write into its array again.
        return {**shown, PRIVILEGED: np.array(self._clean.present)}
