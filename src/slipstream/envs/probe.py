"""Tiny environments whose optimal values are known, for checking algorithms and adapters.

Every one takes one action component in [-1, 1] and is registered as `slipstream/<Class>-v0`
(`make_env` registers them by itself). After "Debugging RL, Without the Agonizing Pain" (A. Jones,
2021): each adds one thing that a learner must get right, so the first that fails names the fault.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar, Literal

import gymnasium as gym
import numpy as np

Ending = Literal["terminated", "truncated", "both"]


class _Probe(gym.Env[np.ndarray, np.ndarray]):
    """One action component, a small observation vector with bounded components."""

    obs_dim: ClassVar[int] = 1
    obs_high: ClassVar[float] = 1.0

    def __init__(self) -> None:
        self.action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.observation_space = gym.spaces.Box(
            -self.obs_high, self.obs_high, (self.obs_dim,), np.float32
        )
        self.t = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin an episode."""
        super().reset(seed=seed, options=options)
        self.t = 0
        return self._begin(), {}

    def _begin(self) -> np.ndarray:
        raise NotImplementedError


def _vector(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


class ProbeConstant(_Probe):
    """One step, obs 0, reward 1: V = 1. Fails where the value loss or optimiser is broken."""

    value: ClassVar[float] = 1.0

    def _begin(self) -> np.ndarray:
        return _vector(0.0)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """End with reward 1."""
        return _vector(0.0), 1.0, True, False, {}


class ProbeObservation(_Probe):
    """One step, obs -1 or 1, reward = obs: V(obs) = obs. Fails where the two are unpaired."""

    def _begin(self) -> np.ndarray:
        self.obs = float(self.np_random.choice([-1.0, 1.0]))
        return _vector(self.obs)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """End with the observation as the reward."""
        return _vector(self.obs), self.obs, True, False, {}

    @staticmethod
    def value(obs: float) -> float:
        """The value of an observation, whatever is done."""
        return obs


class ProbeDiscount(_Probe):
    """Two steps, obs 0 then 1, reward 1 at the end: V(1) = 1, V(0) = gamma.

    Fails where bootstrapping or the terminal cut is wrong.
    """

    def _begin(self) -> np.ndarray:
        return _vector(0.0)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Pay at the second step."""
        self.t += 1
        ended = self.t == 2
        return _vector(1.0), float(ended), ended, False, {}

    @staticmethod
    def value(obs: float, gamma: float) -> float:
        """The value of observation 0 or 1."""
        return gamma ** (1 - round(obs))


class ProbeAction(_Probe):
    """One step, obs uniform in [-1, 1], reward 1 - (a - 0.8 obs)^2: V = 1 at a = 0.8 obs.

    Fails where the actor does not climb the critic.
    """

    value: ClassVar[float] = 1.0

    def _begin(self) -> np.ndarray:
        self.obs = float(self.np_random.uniform(-1.0, 1.0))
        return _vector(self.obs)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """End with a reward for how near the action came."""
        reward = 1.0 - (float(action[0]) - self.best_action(self.obs)) ** 2
        return _vector(self.obs), reward, True, False, {}

    @staticmethod
    def best_action(obs: float) -> float:
        """The action with the highest reward."""
        return 0.8 * obs


class ProbeTruncation(_Probe):
    """Obs 0 and reward 1 for ever, cut every 10 steps by a time limit: V = 1 / (1 - gamma).

    Fails where a time limit is taken for a terminal state (V would be at most 10).
    """

    def _begin(self) -> np.ndarray:
        return _vector(0.0)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Pay 1; never end by itself."""
        return _vector(0.0), 1.0, False, False, {}

    @staticmethod
    def value(gamma: float) -> float:
        """The value of every observation."""
        return 1.0 / (1.0 - gamma)


class ProbeMemory(_Probe):
    """A cue of -1 or 1, shown once, is to be the action `delay` steps later.

    obs = [cue at the first step, else 0; t / delay]. The last of `delay + 1` steps pays
    1 - (a - cue)^2, the others nothing. With memory the best return is 1, at a = cue; without it 0,
    at a = 0. Success is an action on the cue's side, at least half way.
    """

    obs_dim: ClassVar[int] = 2
    best_return: ClassVar[float] = 1.0
    best_memoryless_return: ClassVar[float] = 0.0

    def __init__(self, delay: int = 3) -> None:
        super().__init__()
        self.delay = delay

    def _begin(self) -> np.ndarray:
        self.cue = float(self.np_random.choice([-1.0, 1.0]))
        return _vector(self.cue, 0.0)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Hide the cue; pay at the last step."""
        ended = self.t == self.delay
        self.t += 1
        obs = _vector(0.0, min(self.t / self.delay, 1.0))
        if not ended:
            return obs, 0.0, False, False, {"success": False}
        miss = float(action[0]) - self.cue
        return obs, 1.0 - miss**2, True, False, {"success": abs(miss) <= 0.5}


class ProbeImage(_Probe):
    """One step, obs a dark image with a red and a green square: best is to say how they lie.

    With d the columns from the red to the green one, reward 1 - (a - 0.8 d / D)^2 for D, the most
    there can be: V = 1. Where in the image the two lie does not matter, so that shifting images
    leaves the answer what it was. Fails where an encoder learns nothing; acting without looking
    earns `blind_return` at best.
    """

    size: ClassVar[int] = 32
    square: ClassVar[int] = 8
    value: ClassVar[float] = 1.0

    def __init__(self) -> None:
        super().__init__()
        shape = (self.size, self.size, 3)
        self.observation_space = gym.spaces.Box(0, 255, shape, np.uint8)  # pyright: ignore

    def _begin(self) -> np.ndarray:
        places = self.np_random.integers(0, self.size - self.square + 1, (2, 2))
        self.image = np.zeros((self.size, self.size, 3), np.uint8)
        for channel, (top, left) in enumerate(places):
            rows, columns = slice(top, top + self.square), slice(left, left + self.square)
            self.image[rows, columns, channel] = 255
        self.offset = int(places[1, 1] - places[0, 1])
        return self.image.copy()

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """End with a reward for how near the action came."""
        reward = 1.0 - (float(action[0]) - self.best_action(self.offset)) ** 2
        return self.image.copy(), reward, True, False, {}

    @classmethod
    def best_action(cls, offset: int) -> float:
        """The action with the highest reward, for columns from the red to the green square."""
        return 0.8 * offset / (cls.size - cls.square)

    @classmethod
    def blind_return(cls) -> float:
        """The mean return of always acting 0, the best there is without the image."""
        n = cls.size - cls.square + 1  # places; d is the difference of two uniform ones
        return 1.0 - 0.8**2 * (n**2 - 1) / 6 / (n - 1) ** 2


class ProbeIdentity(_Probe):
    """Every row says where it comes from: obs = [env id, episode, step], both counted from 0.

    Episodes take their lengths and endings in turn from the given lists. The reward of the
    transition that leads to step t of an episode is `identity_reward(env_id, episode, t)`. A seeded
    reset does not begin the count of episodes again.
    """

    obs_dim: ClassVar[int] = 3
    obs_high: ClassVar[float] = 1e6

    def __init__(
        self,
        env_id: int = 0,
        lengths: Sequence[int] = (3, 5, 1),
        endings: Sequence[Ending] = ("terminated", "truncated", "both"),
    ) -> None:
        super().__init__()
        self.env_id, self.lengths, self.endings = env_id, tuple(lengths), tuple(endings)
        self.episode = -1

    def _begin(self) -> np.ndarray:
        self.episode += 1
        return _vector(self.env_id, self.episode, 0)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Count, and end when the episode's length is reached."""
        self.t += 1
        ended = self.t >= self.lengths[self.episode % len(self.lengths)]
        ending = self.endings[self.episode % len(self.endings)]
        obs = _vector(self.env_id, self.episode, self.t)
        reward = identity_reward(self.env_id, self.episode, self.t)
        return obs, reward, ended and ending != "truncated", ended and ending != "terminated", {}


def identity_reward(env_id: int, episode: int, step: int) -> float:
    """The reward of `ProbeIdentity` on reaching `step` (1 for an episode's first transition)."""
    return 10_000.0 * env_id + 100.0 * episode + step


def identity_envs(
    lengths: Sequence[Sequence[int]], endings: Sequence[Ending] = ("terminated",)
) -> list[Callable[[], ProbeIdentity]]:
    """Functions that make one `ProbeIdentity` for each list of episode lengths."""
    return [partial(ProbeIdentity, i, each, endings) for i, each in enumerate(lengths)]


def register() -> None:
    """Register the probes with gymnasium, once."""
    for probe, max_episode_steps in (
        (ProbeConstant, None),
        (ProbeObservation, None),
        (ProbeDiscount, None),
        (ProbeAction, None),
        (ProbeTruncation, 10),
        (ProbeMemory, None),
        (ProbeImage, None),
        (ProbeIdentity, None),
    ):
        env_id = f"slipstream/{probe.__name__}-v0"
        if env_id not in gym.registry:
            entry_point = f"{__name__}:{probe.__name__}"
            gym.register(env_id, entry_point, max_episode_steps=max_episode_steps)


register()
