"""ManiSkill tasks simulated side by side on a CUDA device, where everything but the ends stays."""

import importlib
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, cast

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv

from slipstream.envs.maniskill.making import make_task, task_spec
from slipstream.envs.maniskill.views import camera_names, image_spaces, look, proprioception
from slipstream.envs.masks import mask_indices
from slipstream.errors import SlipstreamError
from slipstream.spec import PRIVILEGED


class ManiSkillBatch(VectorEnv[Any, Any, Any]):
    """N environments of one ManiSkill task in one simulation.

    It speaks torch: actions, observations, rewards and ends are tensors (N, *) on `device`. What a
    policy sees, and when episodes end, is as with `ManiSkillEnv` and the wrappers around it: while
    training, success cuts an episode as a time limit does; in evaluation, and without
    `partial_reset`, nothing but the time limit ends one; in evaluation each has a new scene.
    Episodes cannot be replayed.

    Attributes:
        device: where it lies.
        base: ManiSkill's own environment.
        rendering: False shows black images, to those who do not look at them.
    """

    def __init__(
        self,
        env_id: str,
        num_envs: int,
        sim_backend: str,
        env_kwargs: Mapping[str, Any] | None = None,
        *,
        parts: Collection[str] = ("state",),
        mask: str = "none",
        privileged: bool = False,
        blind: bool = False,
        image_size: int = 64,
        camera: str | None = None,
        evaluation: bool = False,
        view_size: int = 320,
        partial_reset: bool = True,
    ) -> None:
        """Make the task.

        Args:
            env_id: ManiSkill's id.
            num_envs: N.
            sim_backend: ManiSkill's name for what simulates, such as "physx_cuda:0"; "physx_cpu"
                takes one environment.
            env_kwargs: as for `ManiSkillEnv`.
            parts: what is shown, of state, rgb and depth.
            mask: components of the state that are shown (see `mask_indices`).
            privileged: show the whole state beside it, as "privileged".
            blind: blacken all images.
            image_size: height and width of images in pixels.
            camera: one of the task's sensors; None takes all.
            evaluation: follow ManiSkill's protocol for evaluation.
            view_size: height and width of what `render` returns, in pixels.
            partial_reset: as for `ManiSkillEnv`.

        Raises:
            SlipstreamError: as `ManiSkillEnv`; CUDA or the simulator's library for it is missing; a
                camera or mask that does not fit; scenes that are to change while training.
        """
        name = env_id.rpartition(":")[2]
        kwargs = dict(env_kwargs or {})
        if kwargs.get("reconfiguration_freq") and not evaluation and num_envs > 1:
            raise SlipstreamError(
                f"env.kwargs has reconfiguration_freq {kwargs['reconfiguration_freq']}, but a new "
                f"scene would end the episodes of all {num_envs} environments of {name} that are "
                "simulated together: leave it out, or use --env.physics cpu"
            )
        if sim_backend.startswith("physx_cuda"):
            _enable_cuda(name)
        self._task = make_task(
            name, kwargs, evaluation, image_size, view_size, sim_backend, num_envs
        )
        self.base: Any = self._task.unwrapped
        self.device = self.base.device
        self.num_envs = num_envs
        self.spec = task_spec(name, self._task)
        self.metadata = {
            "autoreset_mode": AutoresetMode.DISABLED,
            "render_fps": self.base.control_freq,
        }
        self.rendering = True
        self._plays_on = evaluation or not partial_reset
        self._blind = blind
        self._textures = sorted({*parts} - {"state"}, reverse=True)
        self._describe(name, parts, mask, privileged, camera)

    def _describe(
        self, name: str, parts: Collection[str], mask: str, privileged: bool, camera: str | None
    ) -> None:
        """The spaces, and which components of the state are shown as what."""
        single = cast("gym.spaces.Box", self.base.single_observation_space)
        whole = np.arange(single.shape[0])
        self._shown: dict[str, Any] = {}  # key -> components, or None for all
        if "state" in parts:
            kept = np.array(proprioception(self.base, name)) if self._textures else whole
            kept = kept[list(mask_indices(mask, _Vector(self.spec, len(kept))))]
            self._shown["state"] = None if np.array_equal(kept, whole) else self._index(kept)
        if privileged:
            self._shown[PRIVILEGED] = None
        sizes = {key: len(whole if kept is None else kept) for key, kept in self._shown.items()}
        spaces: dict[str, gym.Space[Any]] = {
            key: gym.spaces.Box(-np.inf, np.inf, (size,), np.float32) for key, size in sizes.items()
        }
        self._cameras: list[str] = []
        if self._textures:
            self._cameras = camera_names(self.base, camera)
            spaces |= image_spaces(self.base, self._cameras, self._textures)
        self._image_shapes = {key: spaces[key].shape or () for key in self._textures}
        self.single_observation_space = gym.spaces.Dict(spaces)
        self.observation_space = gym.vector.utils.batch_space(
            self.single_observation_space, self.num_envs
        )
        self.single_action_space = self.base.single_action_space
        self.action_space = self.base.action_space

    def _index(self, kept: np.ndarray) -> Any:
        import torch

        return torch.as_tensor(kept, device=self.device)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: Any = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Begin an episode everywhere, or where `options["reset_mask"]` (N,) says so.

        Without a seed, seeds are drawn from torch's generator. Where an episode begins by itself
        while others go on, the task draws from that generator itself.
        """
        import torch

        if options is not None and "reset_mask" in options:
            chosen = np.flatnonzero(options["reset_mask"])
            obs, info = self._task.reset(options={"env_idx": self._index(chosen)})
            return self._observation(obs), info
        if seed is None:
            seed = torch.randint(2**31, (self.num_envs,)).tolist()
        elif isinstance(seed, int):
            seed = list(range(seed, seed + self.num_envs))
        seeds = [int(each or 0) % 2**32 for each in cast("Sequence[int]", seed)]
        obs, info = cast("Any", self._task).reset(seed=seeds)
        return self._observation(obs), info

    def step(self, actions: Any) -> tuple[dict[str, Any], Any, Any, Any, dict[str, Any]]:
        """Take one step everywhere; who calls resets what ended."""
        obs, reward, terminated, truncated, info = cast("Any", self._task).step(actions)
        if self._plays_on:
            terminated = terminated & False
        elif "success" in info:
            cut = terminated & info["success"]
            if "fail" in info:
                cut = cut & ~info["fail"]
            terminated, truncated = terminated & ~cut, truncated | cut
        return self._observation(obs), reward, terminated, truncated, info

    def _observation(self, obs: Any) -> dict[str, Any]:
        shown = {
            key: obs if kept is None else obs.index_select(1, kept)
            for key, kept in self._shown.items()
        }
        if not self._textures:
            return shown
        if self.rendering and not self._blind:
            return shown | look(self.base, self._cameras, self._textures)
        import torch

        return shown | {
            key: torch.zeros((self.num_envs, *shape), dtype=torch.uint8, device=self.device)
            for key, shape in self._image_shapes.items()
        }

    def render(self) -> Any:
        """(H, W, 3) uint8, the view of the first environment that ManiSkill means for people."""
        return self.base.render_rgb_array()[0].numpy(force=True)

    def close_extras(self, **kwargs: Any) -> None:
        """Release the simulation."""
        self._task.close()


class _Vector(gym.Env[np.ndarray, np.ndarray]):
    """Stands for one environment of a batch where its observation is described."""

    def __init__(self, spec: Any, size: int) -> None:
        self.spec = spec
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (size,), np.float32)


def sim_backend(physics: str) -> str:
    """ManiSkill's name for the simulator on a torch device: "cuda:1" -> "physx_cuda:1"."""
    return f"physx_{physics}"


def _enable_cuda(name: str) -> None:
    """Load the simulator's library for CUDA, before anything is simulated on the CPU.

    Raises:
        SlipstreamError: there is no CUDA device, or no such library.
    """
    import torch

    remedy = "use --env.physics cpu; `slipstream doctor` tells what is there"
    if not torch.cuda.is_available():
        raise SlipstreamError(
            f"{name} cannot be simulated on a GPU: torch finds no CUDA device; {remedy}"
        )
    try:
        importlib.import_module("sapien.physx").enable_gpu()
    except Exception as error:  # from a download to a driver, whatever may fail in it
        detail = re.sub(r"\s+", " ", str(error))[:300]
        raise SlipstreamError(
            f"{name} cannot be simulated on a GPU: PhysX's library for it cannot be loaded "
            f"({detail}); {remedy}"
        ) from error
