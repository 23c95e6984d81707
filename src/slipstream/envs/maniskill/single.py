"""A ManiSkill task as a plain Gymnasium environment on the CPU, with images on demand.

Physics runs on the CPU, one environment a process at most; images are rendered on a GPU where
there is one, else by Mesa's Vulkan driver. https://github.com/haosulab/ManiSkill
"""

import importlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import gymnasium as gym
import numpy as np

from slipstream.envs.maniskill.making import make_task, task_spec
from slipstream.envs.maniskill.tasks import needs_new_scene
from slipstream.envs.maniskill.views import camera_names, image_spaces, look, proprioception
from slipstream.envs.pixels import Images


class ManiSkillEnv(gym.Env[np.ndarray, np.ndarray]):
    """One ManiSkill task: the full state as a float32 vector, `info["success"]`.

    Every episode follows from a seed of its own, drawn from `np_random` where `reset` is given
    none, so that it can be replayed from that generator's state.

    While training, success cuts the episode: it is reported as truncated, for nothing is lost in
    it, and a policy that is paid for every step would else learn to avoid it. Failure terminates.
    Without `partial_reset` neither ends it. In evaluation (ManiSkill's protocol) neither does, and
    each episode has a new scene.

    Attributes:
        base: ManiSkill's own environment.
        proprioception: components of the state that ManiSkill shows beside images (joints, tool,
            goals that cannot be seen), without what would give away what is to be looked for.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"]}  # noqa: RUF012 - gymnasium's own
    render_mode = "rgb_array"

    def __init__(
        self,
        env_id: str,
        env_kwargs: Mapping[str, Any] | None = None,
        image_size: int = 64,
        evaluation: bool = False,
        view_size: int = 320,
        partial_reset: bool = True,
    ) -> None:
        """Make the task.

        Args:
            env_id: ManiSkill's id.
            env_kwargs: keyword arguments of the task (`control_mode`, `robot_uids`, `reward_mode`,
                `reconfiguration_freq`, ...), and `max_episode_steps`.
            image_size: height and width of the cameras' images in pixels.
            evaluation: follow ManiSkill's protocol for evaluation.
            view_size: height and width of what `render` returns, in pixels.
            partial_reset: while training, let success and failure end an episode.

        Raises:
            SlipstreamError: ManiSkill, a Vulkan driver or the task's files are missing, with the
                command that gets them; or the task cannot be made with these arguments.
        """
        name = env_id.rpartition(":")[2]
        new_scene = evaluation or needs_new_scene(name)
        task = make_task(name, env_kwargs or {}, new_scene, image_size, view_size)
        wrappers: Any = importlib.import_module("mani_skill.utils.wrappers")
        self._env: gym.Env[Any, Any] = wrappers.CPUGymWrapper(
            task, ignore_terminations=evaluation or not partial_reset
        )
        self.base: Any = task.unwrapped
        self.spec = task_spec(name, task)
        self.observation_space = _vector(self._env.observation_space)
        self.action_space = cast("gym.spaces.Box", self._env.action_space)
        self.proprioception = proprioception(self.base, name)
        self.metadata = {**self.metadata, "render_fps": self.base.control_freq}
        self.moved = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin an episode."""
        super().reset(seed=seed)
        if seed is None:
            seed = int(self.np_random.integers(2**31))
        obs, info = self._env.reset(seed=seed % 2**32, options=options)
        self.moved = False
        return np.asarray(obs, np.float32), info

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Take one step."""
        if self.moved:
            raise RuntimeError("render_state moved the scene: reset before the next step")
        obs, reward, terminated, truncated, info = self._env.step(action)
        if terminated and info.get("success") and not info.get("fail"):
            terminated, truncated = False, True
        return np.asarray(obs, np.float32), float(reward), bool(terminated), bool(truncated), info

    def render(self) -> np.ndarray:
        """(H, W, 3) uint8, the view that ManiSkill means for people."""
        return np.asarray(self._env.render())

    def close(self) -> None:
        """Release the scene."""
        self._env.close()


class ManiSkillCameras:
    """Renders a ManiSkill task: all of its sensors side by side as channels, or one of them."""

    def __init__(
        self, env: ManiSkillEnv, textures: Sequence[str] = ("rgb",), camera: str | None = None
    ) -> None:
        """Choose what to render.

        Args:
            env: the task.
            textures: observation keys, of `rgb` and `depth`. A depth of d metres is shown as
                255 d / (1 + d), in steps of 9 mm at half a metre; 0 is where there is nothing.
            camera: one of the task's sensors; None takes all.

        Raises:
            SlipstreamError: no such sensor, or the task has none.
        """
        self._env, self._textures = env, tuple(textures)
        self._names = camera_names(env.base, camera)
        # Before the first episode nothing is in its place, but shapes are what they will be.
        self._parts = [(key, part.shape[-1]) for key, part in self._state_parts()]

    @property
    def spaces(self) -> Mapping[str, gym.spaces.Box]:
        """Images of all cameras, 3 channels each in `rgb` and 1 in `depth`."""
        return image_spaces(self._env.base, self._names, self._textures)

    @property
    def state_size(self) -> int:
        """Poses and velocities of everything that moves."""
        return sum(size for _, size in self._parts)

    def render(self) -> Images:
        """Images of the present."""
        seen = look(self._env.base, self._names, self._textures)
        images = {key: image[0].numpy(force=True) for key, image in seen.items()}
        return {key: np.ascontiguousarray(image) for key, image in images.items()}

    def sim_state(self) -> np.ndarray:
        """Poses and velocities of everything that moves, float32 numbers in float64."""
        parts = [part[0].numpy(force=True) for _, part in self._state_parts()]
        return np.concatenate(parts, dtype=np.float64)

    def render_state(self, state: np.ndarray) -> Images:
        """Images of a stored state; afterwards the environment must be reset before it is stepped.

        What a new scene would change (the shape of a peg) is no part of the state.
        """
        import torch

        row = torch.as_tensor(state, dtype=torch.float32)[None]
        tree: dict[str, dict[str, Any]] = {}
        for ((kind, name), _), part in zip(
            self._parts, row.split([size for _, size in self._parts], -1), strict=True
        ):
            tree.setdefault(kind, {})[name] = part
        self._env.base.set_state_dict(tree)
        self._env.moved = True
        return self.render()

    def _state_parts(self) -> Iterator[tuple[tuple[str, str], Any]]:
        """((kind, name), (1, n)) for everything that moves."""
        state = self._env.base.get_state_dict()
        for kind in ("actors", "articulations"):
            for name, part in state.get(kind, {}).items():
                yield (kind, name), part

    def close(self) -> None:
        """Nothing to release: the cameras belong to the scene."""


def _vector(space: gym.Space[Any]) -> gym.spaces.Box:
    return gym.spaces.Box(-np.inf, np.inf, space.shape, np.float32)
