"""The first reset and the first step of an environment nobody has seen before."""

from collections.abc import Mapping
from typing import Any, SupportsFloat

import gymnasium as gym
import numpy as np

from slipstream.envs.spaces import to_numpy
from slipstream.errors import SlipstreamError

_RESET = "reset(*, seed=None, options=None) returns (observation, info)"
_STEP = "step(action) returns (observation, reward, terminated, truncated, info)"
_OLD = "; gymnasium's docs tell how to adapt an environment written for OpenAI Gym"


class FirstContact(gym.Wrapper[Any, Any, Any, Any]):
    """Checks that an environment keeps gymnasium's contract, once, and then stands aside.

    From the second call on, `reset` and `step` are those of the environment, at no cost.
    """

    def __init__(self, env: gym.Env[Any, Any], name: str, goes_by: str | None = None) -> None:
        """Keep the environment.

        Args:
            env: any.
            name: for error messages.
            goes_by: the id that a run stores, where the environment's own is not enough.
        """
        super().__init__(env)
        self._name = name
        self.goes_by = goes_by

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin the first episode.

        Raises:
            SlipstreamError: it takes other arguments, returns something else than an observation
                and a dict, or an observation that does not fit its space.
        """
        try:
            result = self.env.reset(seed=seed, options=options)
        except (TypeError, ValueError) as error:
            if "unexpected keyword argument" in str(error) or "to unpack" in str(error):
                raise self._broken(f"reset() failed: {error}", _RESET + _OLD) from error
            raise
        if not isinstance(result, tuple) or len(result) != 2:
            raise self._broken(f"reset() returned {_kind(result)}", _RESET + _OLD)
        self._check_obs(result[0], self.observation_space, "reset()")
        self.reset = self.env.reset
        return result

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Take the first step.

        Raises:
            SlipstreamError: it returns something else than the five values of a step, an
                observation that does not fit its space, or a reward that is no number.
        """
        try:
            result = self.env.step(action)
        except ValueError as error:
            if "to unpack" in str(error):  # in a wrapper of gymnasium around it
                raise self._broken(f"step() failed: {error}", _STEP + _OLD) from error
            raise
        if not isinstance(result, tuple) or len(result) != 5:
            raise self._broken(f"step() returned {_kind(result)}", _STEP + _OLD)
        self._check_obs(result[0], self.observation_space, "step()")
        try:
            float(result[1])
        except (TypeError, ValueError) as error:
            raise self._broken(f"step() returned the reward {result[1]!r}", _STEP) from error
        self.step = self.env.step
        return result

    def _check_obs(self, obs: Any, space: gym.Space[Any], where: str, key: str = "") -> None:
        named = f"observation{key}"
        if isinstance(space, gym.spaces.Dict):
            if not isinstance(obs, Mapping) or not {*space} <= {*obs}:
                shown = sorted(obs) if isinstance(obs, Mapping) else type(obs).__name__
                raise self._broken(
                    f"{where} returned the {named} {shown}",
                    f"its observation space has the keys {sorted(space)}",
                )
            for part in space:
                self._check_obs(obs[part], space[part], where, f" {part!r}")
        elif isinstance(space, gym.spaces.Box):
            if _shape(obs) != space.shape:
                raise self._broken(
                    f"{where} returned an {named} of shape {_shape(obs)}",
                    f"its observation space says {space.shape}",
                )
            dtype = to_numpy(obs).dtype
            if not np.can_cast(dtype, space.dtype, "same_kind"):
                raise self._broken(
                    f"{where} returned an {named} of {dtype}",
                    f"its observation space says {space.dtype}",
                )

    def _broken(self, found: str, contract: str) -> SlipstreamError:
        return SlipstreamError(f"{self._name}: {found}, but {contract}")


def _kind(value: Any) -> str:
    return f"{len(value)} values" if isinstance(value, tuple) else f"one {type(value).__name__}"


def _shape(obs: Any) -> tuple[int, ...] | str:
    try:
        return np.shape(to_numpy(obs))
    except ValueError:
        return "that differs between its parts"
