"""One adapter over every vectorised environment: all auto-reset dialects end here."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import gymnasium as gym
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv

from slipstream.envs.arrays import Array, Arrays, HostArrays
from slipstream.envs.autoreset import (
    autoreset_mode,
    final_obs,
    success_entries,
    success_flags,
)
from slipstream.envs.finite import check_reward, refuse_obs
from slipstream.envs.previous import Previous, comparable
from slipstream.envs.running_episodes import RunningEpisodes
from slipstream.envs.spaces import ActionScale, observation_spec, stack_obs, to_numpy
from slipstream.envs.step_result import Episode, StepResult
from slipstream.errors import SlipstreamError
from slipstream.spec import SIM_STATE, EnvSpec

__all__ = ["Episode", "StepResult", "VecEnv"]


class VecEnv:
    """N environments that act in [-1, 1] and never hide an episode's last observation.

    Understands gymnasium's three auto-reset modes and the older `final_observation` key (also
    ManiSkill's). Observations become `{"state": (N, n) float32}` or `{"rgb": (N, H, W, C) uint8}`;
    a Dict of Boxes keeps its keys.

    They are numpy arrays, or torch tensors on the device of an environment that speaks torch. Of
    those nothing is brought to the host but rewards, ends and success, in one transfer a step and
    another where an episode ends.

    Attributes:
        spec: names, shapes and bounds of a single environment.
        spec_rendered: the same, with images in place of the simulator's state that stands in for
            them.
        num_envs: N.
        current_obs: key -> (N, *), what to act on next; set by `reset`, `step`, `load_state_dict`.
        restarted: (N,) bool, the environments whose episode the last `load_state_dict` could not
            restore, and which began a new one instead.
    """

    spec: EnvSpec
    spec_rendered: EnvSpec
    num_envs: int
    current_obs: dict[str, Array]
    restarted: np.ndarray

    def __init__(
        self,
        vector_env: VectorEnv[Any, Any, Any],
        *,
        recorded: bool = False,
        device: Any = None,
        prev_action: bool = False,
        prev_reward: bool = False,
        differences: bool = False,
    ) -> None:
        """Wrap a vector environment; see `make_env` to build one that can be restored exactly.

        Args:
            vector_env: any gymnasium vector environment; closed together with this adapter.
            device: the torch device on which it takes actions and shows observations; None where
                it does so in numpy arrays.
            recorded: every environment in it is an `EpisodeRecorder`, so that its running episodes
                can be saved and restored.
            prev_action: add the key "prev_action" (N, A), in [-1, 1]; zeros at an episode's start.
            prev_reward: add the key "prev_reward" (N, 1); zero at an episode's start.
            differences: add to each vector "state" (N, n) that the policy sees "state.difference"
                (N, n), by how much it changed since the last step; zeros at an episode's start.

        Raises:
            SlipstreamError: a space or auto-reset mode that is not supported.
        """
        self.num_envs = vector_env.num_envs
        self._vector_env = vector_env
        self._recorded = recorded
        name, max_episode_steps = _describe(vector_env, recorded)
        self._shown = observation_spec(vector_env.single_observation_space, name)
        self._action_scale = ActionScale(vector_env.single_action_space, name)
        self._arrays = _arrays(self._action_scale, device)
        low, high = self._action_scale.low.tolist(), self._action_scale.high.tolist()
        action_dim = len(low) if prev_action else None
        compared = comparable(self._shown) if differences else {}
        self._previous = Previous(self._arrays, self.num_envs, action_dim, prev_reward, compared)
        obs_spec = {**self._shown, **self._previous.spec}
        self.spec = EnvSpec(name, obs_spec, tuple(low), tuple(high), max_episode_steps)
        self.spec_rendered = self._rendered_spec()
        self._autoreset_mode = autoreset_mode(vector_env, name)
        self.current_obs = {}
        self.restarted = np.zeros(self.num_envs, bool)
        self._begin_episodes()

    def reset(self, seed: int | Sequence[int] | None = None) -> dict[str, Array]:
        """Begin a new episode everywhere.

        Args:
            seed: an int seeds environment i with `seed + i`; a sequence gives every seed.

        Returns:
            The first observations, key -> (N, *).

        Raises:
            SlipstreamError: bad seeds, or an observation that is not finite.
        """
        if isinstance(seed, int | np.integer):
            seed = int(seed)
        elif seed is not None:
            seed = [int(value) for value in seed]
            if len(seed) != self.num_envs:
                raise SlipstreamError(
                    f"got {len(seed)} seeds for {self.num_envs} environments: give one int, or one "
                    "seed for each environment"
                )
        if seed is not None and np.min(seed) < 0:
            raise SlipstreamError(f"the seed must not be negative, got {seed}: use 0 or more")
        raw_obs, _ = self._vector_env.reset(seed=cast("Any", seed))
        self._begin_episodes()
        self.restarted = np.zeros(self.num_envs, bool)
        self.current_obs = self._arrays.obs(raw_obs, self._shown)
        self._check_obs(self.current_obs)
        self._previous.add_to(self.current_obs, np.ones(self.num_envs, bool))
        return self.current_obs

    def step(self, action: Array) -> StepResult:
        """Take one step in every environment, and begin a new episode where one ended.

        Args:
            action: (N, A); clipped to [-1, 1] and rescaled to the environment's own units.

        Returns:
            The transitions and what to act on next.

        Raises:
            SlipstreamError: an action of the wrong shape or not finite; a reward or observation
                that is not finite; `reset` was never called.
        """
        if not self.current_obs:
            raise SlipstreamError(f"{self.spec.env_id} was stepped before reset(): call it first")
        acted = ~self._reset_is_due
        obs, told, infos = self._step_raw(action)
        reward = np.array(told["reward"], np.float64)
        terminated = np.array(told["terminated"], np.bool_)
        truncated = np.array(told["truncated"], np.bool_)
        done = terminated | truncated
        reward[self._reset_is_due] = 0.0
        self._running.length += acted
        same_step = self._autoreset_mode is AutoresetMode.SAME_STEP
        self._check_finite(told["finite"], obs, done if same_step else None, action)
        check_reward(self.spec.env_id, reward, self._running.length)
        self._running.add(reward)

        next_obs, started = obs, self._reset_is_due
        any_done = bool(done.any())
        if self._autoreset_mode is AutoresetMode.NEXT_STEP:
            self._reset_is_due = done.copy()
        elif any_done:
            started = done.copy()
            if same_step:
                final = self._arrays.obs(final_obs(infos, done, self.spec.env_id), self._shown)
                next_obs = self._arrays.merged(obs, final, done)
                self._check_obs(next_obs)
            else:
                first, _ = self._vector_env.reset(options={"reset_mask": done.copy()})
                obs = self._arrays.merged(next_obs, self._arrays.obs(first, self._shown), done)
                self._check_obs(obs, first=done)
        if self._previous.spec:
            self._previous.keep(action, reward, self.current_obs, next_obs)
            self._previous.add_to(next_obs, ~acted)
            self._previous.add_to(obs, started)
        succeeded = None
        if infos:
            succeeded = success_flags(infos, told, done)
            succeeded[~acted] = -1
            self._running.report(succeeded)
        episodes = self._running.end(done, succeeded) if any_done else ()
        self.current_obs = obs
        reward = reward.astype(np.float32)
        return StepResult(
            next_obs, reward, terminated, truncated, obs, started.copy(), acted, episodes
        )

    def state_dict(self) -> dict[str, Any]:
        """The running episodes and their statistics.

        Returns:
            Nested dict of JSON values and numpy arrays. `sub_envs` is None where the environment
            was handed over ready-made: its episodes cannot be restored.

        Raises:
            SlipstreamError: `reset` was never called.
        """
        if not self.current_obs:
            raise SlipstreamError(f"{self.spec.env_id} has no state before reset(): call it first")
        states = self._vector_env.call("episode_state") if self._recorded else None  # pyright: ignore[reportAttributeAccessIssue]
        return {
            "env_id": self.spec.env_id,
            "num_envs": self.num_envs,
            **self._running.state_dict(),
            "previous": {key: self.current_obs[key] for key in self._previous.spec},
            "sub_envs": None if states is None else {str(i): s for i, s in enumerate(states)},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> bool:
        """Go on with the saved episodes by replaying their actions (see `EpisodeRecorder`).

        Afterwards `current_obs` is what to act on next, and `restarted` marks the environments
        that could not be restored: they stand at the first observation of a new episode.

        Args:
            state: what `state_dict` returned, for the same environment and `num_envs`.

        Returns:
            True if every environment goes on exactly where it was.

        Raises:
            SlipstreamError: the state belongs to another environment or another `num_envs`.
        """
        saved, here = (state["env_id"], state["num_envs"]), (self.spec.env_id, self.num_envs)
        if saved != here:
            raise SlipstreamError(
                f"the saved state is of {saved[1]} x {saved[0]}, but this run has {here[1]} x "
                f"{here[0]}: resume with the environment and num_envs it was saved with"
            )
        if state["sub_envs"] is None or not self._recorded:
            self.reset()
            self.restarted = np.ones(self.num_envs, bool)
            return False
        self._vector_env.set_attr(  # pyright: ignore[reportAttributeAccessIssue]
            "pending", [state["sub_envs"][str(i)] for i in range(self.num_envs)]
        )
        results = self._vector_env.call("restore_pending")  # pyright: ignore[reportAttributeAccessIssue]
        exact = np.array([exact for _, exact in results])
        self._running.load_state_dict(state, exact)
        stacked = stack_obs([obs for obs, _ in results])
        self.current_obs = self._arrays.obs(stacked, self._shown)
        self._previous.load(state["previous"])
        self._previous.add_to(self.current_obs, ~exact)
        self.restarted = ~exact
        return bool(exact.all())

    def show_images(self, shown: bool) -> None:
        """Render images, or show black ones to who does not look at them.

        For environments that render images themselves; others always show what they have.
        """
        inner: Any = self._vector_env.unwrapped
        if hasattr(inner, "rendering"):
            inner.rendering = shown
        elif self._recorded and self._vector_env.call("renders_images")[0]:  # pyright: ignore[reportAttributeAccessIssue]
            self._vector_env.set_attr("rendering", shown)  # pyright: ignore[reportAttributeAccessIssue]

    def render_states(self, states: np.ndarray) -> dict[str, np.ndarray]:
        """Images of stored simulator states (R, n): key -> (R, H, W, C); for one environment.

        Reset before the next step: a simulator may have been moved.
        """
        return self._vector_env.call("render_states", states)[0]  # pyright: ignore[reportAttributeAccessIssue]

    def _rendered_spec(self) -> EnvSpec:
        if SIM_STATE not in self.spec.obs:
            return self.spec
        spaces = self._vector_env.call("image_spaces")[0]  # pyright: ignore[reportAttributeAccessIssue]
        images = observation_spec(gym.spaces.Dict(spaces), self.spec.env_id)
        obs = {key: value for key, value in self.spec.obs.items() if key != SIM_STATE}
        return replace(self.spec, obs=images | obs)

    def close(self) -> None:
        """Release the environments and their processes. May be called twice."""
        try:
            self._vector_env.close()
        except (EOFError, ConnectionError):
            self._end_processes()

    def _end_processes(self) -> None:
        """End what is left once a process has died: an orderly close would wait for it."""
        inner = self._vector_env.unwrapped
        if isinstance(inner, AsyncVectorEnv):
            for process in inner.processes:
                process.terminate()
                process.join()
            inner.closed = True

    def _begin_episodes(self) -> None:
        self._running = RunningEpisodes(self.num_envs)
        self._reset_is_due = np.zeros(self.num_envs, bool)  # by the next step (NEXT_STEP only)

    def _step_raw(
        self, action: Array
    ) -> tuple[dict[str, Array], dict[str, np.ndarray], Mapping[str, Any]]:
        """One step of the vector environment: observations, what it tells (N,), and its infos."""
        sent = self._arrays.to_env(action, self.num_envs)
        try:
            raw_obs, reward, terminated, truncated, infos = self._vector_env.step(sent)
        except (EOFError, ConnectionError) as error:
            self._end_processes()
            raise SlipstreamError(
                f"a process that runs {self.spec.env_id} died (out of memory, or killed): resume "
                "with fewer num_envs or without parallel environments"
            ) from error
        obs = self._arrays.obs(raw_obs, self._shown)
        told = {
            "reward": reward,
            "terminated": terminated,
            "truncated": truncated,
            "finite": self._arrays.finite(obs, action),
        }
        if infos:
            told |= success_entries(infos)
        return obs, self._arrays.fetch(told), infos

    def _check_obs(self, obs: Mapping[str, Array], first: np.ndarray | None = None) -> None:
        """Refuse NaN and infinity; rows where `first` are the first of their episode."""
        told = self._arrays.fetch({"finite": self._arrays.finite(obs)})
        self._check_finite(told["finite"], obs, first)

    def _check_finite(
        self,
        finite: np.ndarray,
        obs: Mapping[str, Array],
        first: np.ndarray | None,
        action: Array | None = None,
    ) -> None:
        """Say what is not finite in a row (N,) of which that is known."""
        if finite.all():
            return
        if action is not None:
            self._action_scale.check_finite(to_numpy(action))
        refuse_obs(self.spec.env_id, obs, self._running.length, first)


def _describe(vector_env: VectorEnv[Any, Any, Any], recorded: bool) -> tuple[str, int | None]:
    """The id and the time limit of a single environment."""
    if recorded:
        return vector_env.get_attr("description")[0]  # pyright: ignore[reportAttributeAccessIssue]
    spec = vector_env.spec
    inner = vector_env.unwrapped
    if spec is None and isinstance(inner, SyncVectorEnv):
        spec = inner.envs[0].spec
    if spec is not None:
        return spec.id, spec.max_episode_steps
    return type(inner).__name__, getattr(inner, "max_episode_steps", None)


def _arrays(scale: ActionScale, device: Any) -> Arrays:
    if device is None:
        return HostArrays(scale)
    from slipstream.envs.device_arrays import DeviceArrays

    return DeviceArrays(scale, device)
