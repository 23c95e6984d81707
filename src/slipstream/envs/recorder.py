"""Exact resume for any deterministic environment: begin the episode again, replay its actions."""

from typing import Any, SupportsFloat

import gymnasium as gym
import numpy as np

SUCCESS_KEYS = ("success", "is_success")


class EpisodeRecorder(gym.Wrapper[Any, Any, Any, Any]):
    """Remembers how the running episode began and every action since.

    A simulator holds state that no public interface shows (warm starts, contact caches, the
    counters of wrappers). Beginning the episode again from the same random state and replaying
    its actions rebuilds all of it, with no code for any particular simulator. It is exact where
    the environment is deterministic and draws its randomness from `np_random`; whether it was is
    checked against the observation, the rewards and the random state at the time of saving.

    The memory grows by one action a step and is dropped at the episode's end.

    `info` is cut down to the success flag, the only entry that the adapter reads: gathering the
    others costs more than the step of a light simulator.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        self.pending: dict[str, Any] | None = None
        self._seed: int | None = None
        self._rng_before_reset: dict[str, Any] | None = None
        self._actions: list[np.ndarray] = []
        self._obs: Any = None
        self._return = 0.0

    @property
    def description(self) -> tuple[str, int | None]:
        """The environment's id and its time limit in steps."""
        spec = self.spec
        if spec is None:
            return type(self.unwrapped).__name__, None
        goes_by = self.get_wrapper_attr("goes_by") if self.has_wrapper_attr("goes_by") else None
        return goes_by or spec.id, spec.max_episode_steps

    @property
    def renders_images(self) -> bool:
        """Whether images are rendered that could be left out (`PixelObservation`)."""
        return self.has_wrapper_attr("rendering")

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin an episode, and remember from which seed or random state."""
        self._seed = seed
        self._rng_before_reset = None if seed is not None else self._rng_state()
        self._actions = []
        self._return = 0.0
        self._obs, _ = self.env.reset(seed=seed, options=options)
        return self._obs, {}

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Take one step and remember its action."""
        # A copy: the caller's array may be a view into a batch that is used again.
        self._actions.append(np.array(action))
        obs, reward, terminated, truncated, info = self.env.step(action)
        if terminated or truncated:
            # The reset that follows at once may overwrite the buffer that the env returned.
            obs = _copy(obs)
        self._obs = obs
        self._return += float(reward)
        flags = {key: bool(info[key]) for key in SUCCESS_KEYS if key in info}
        return obs, reward, bool(terminated), bool(truncated), flags

    def episode_state(self) -> dict[str, Any]:
        """The running episode: how it began, its actions, and what it must look like again.

        Returns:
            JSON values and numpy arrays: `seed`, `rng_before_reset`, `actions` (T, *), `obs`,
            `episode_return`, `rng`.
        """
        shape, dtype = self.action_space.shape or (), self.action_space.dtype
        return {
            "seed": None if self._seed is None else int(self._seed),
            "rng_before_reset": self._rng_before_reset,
            "actions": np.array(self._actions, dtype).reshape(len(self._actions), *shape),
            "obs": _copy(self._obs),
            "episode_return": self._return,
            "rng": self._rng_state(),
        }

    def restore_pending(self) -> tuple[Any, bool]:
        """Rebuild the episode in `pending`, or begin a new one where that fails.

        Returns:
            The observation to act on, and whether the saved episode goes on exactly.
        """
        state, self.pending = self.pending, None
        if state is None:
            raise RuntimeError("set `pending` to a value of `episode_state()` first")
        if self._replay(state):
            return self._obs, True
        self._set_rng_state(state["rng"])
        self.reset()
        return self._obs, False

    def _replay(self, state: dict[str, Any]) -> bool:
        if state["seed"] is None:
            self._set_rng_state(state["rng_before_reset"])
        self.reset(seed=state["seed"])
        for action in state["actions"]:
            # A copy: some environments write into their action, and a loaded array refuses.
            _, _, terminated, truncated, _ = self.step(action.copy())
            if terminated or truncated:
                return False
        return (
            _identical(self._obs, state["obs"])
            and self._return == state["episode_return"]
            and _same(self._rng_state(), state["rng"])
        )

    def _rng_state(self) -> dict[str, Any]:
        return dict(self.unwrapped.np_random.bit_generator.state)

    def _set_rng_state(self, state: dict[str, Any]) -> None:
        # In place where possible: parts of the environment may share the generator.
        generator = self.unwrapped.np_random
        if generator.bit_generator.state["bit_generator"] != state["bit_generator"]:
            generator = np.random.Generator(getattr(np.random, state["bit_generator"])())
            self.unwrapped.np_random = generator
        generator.bit_generator.state = state


def _copy(obs: Any) -> Any:
    """An observation of arrays of its own: one array, or a dict of them."""
    if isinstance(obs, dict):
        return {key: _copy(value) for key, value in obs.items()}
    return np.array(obs)


def _identical(a: Any, b: Any) -> bool:
    """Whether two observations are equal bit for bit."""
    if isinstance(a, dict) or isinstance(b, dict):
        same_keys = isinstance(a, dict) and isinstance(b, dict) and set(a) == set(b)
        return same_keys and all(_identical(a[key], b[key]) for key in a)
    a, b = np.asarray(a), np.asarray(b)
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def _same(a: Any, b: Any) -> bool:
    """Whether two nested states of a bit generator are equal, arrays included."""
    if isinstance(a, dict):
        return set(a) == set(b) and all(_same(a[key], b[key]) for key in a)
    return bool(np.array_equal(a, b))
