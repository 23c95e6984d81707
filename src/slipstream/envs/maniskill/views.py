"""What a ManiSkill task shows, of all its environments at once: images, and a robot's own state."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from slipstream.errors import SlipstreamError

# What would tell, beside the image, where things are that the image is to be looked at for: the
# goal of PullCube lies at a fixed distance from where its cube starts.
_TELLS = {"PullCube-v1": ("extra.goal_pos",)}


def camera_names(base: Any, camera: str | None) -> list[str]:
    """The sensors of a task that are looked through: one, or all for None.

    Raises:
        SlipstreamError: no such sensor, or the task has none.
    """
    names = list(base.scene.sensors)
    if not names or camera not in (None, *names):
        raise SlipstreamError(
            f"{base.spec and base.spec.id} has no camera{f' {camera!r}' if camera else ''}: "
            + (f"choose of {', '.join(names)}" if names else "show its state instead")
        )
    return names if camera is None else [camera]


def image_spaces(
    base: Any, names: Sequence[str], textures: Sequence[str]
) -> dict[str, gym.spaces.Box]:
    """Observation key -> the space of what `look` shows of one environment."""
    config = base.scene.sensors[names[0]].config
    channels = {"rgb": 3 * len(names), "depth": len(names)}
    return {
        key: gym.spaces.Box(0, 255, (config.height, config.width, channels[key]), np.uint8)
        for key in textures
    }


def look(base: Any, names: Sequence[str], textures: Sequence[str]) -> dict[str, Any]:
    """Images of the present, all sensors side by side: key -> (N, H, W, C) uint8 tensors."""
    import torch

    for hidden in base._hidden_objects:
        hidden.hide_visual()
    base.scene.update_render(update_sensors=True, update_human_render_cameras=False)
    sensors = [base.scene.sensors[name] for name in names]
    for sensor in sensors:
        sensor.capture()
    views = [
        sensor.get_obs(
            rgb="rgb" in textures, depth="depth" in textures, position=False, segmentation=False
        )
        for sensor in sensors
    ]
    images = {key: torch.cat([view[key] for view in views], -1) for key in textures}
    return {key: shown_depth(image) if key == "depth" else image for key, image in images.items()}


def shown_depth(millimetres: Any) -> Any:
    """Distances as bytes; tensors."""
    metres = millimetres.float() / 1000
    return (255 * metres / (1 + metres)).round().byte()


def proprioception(base: Any, name: str) -> tuple[int, ...]:
    """Components of the flattened state that ManiSkill shows beside images, less what tells."""
    info, tells = base.get_info(), _TELLS.get(name, ())
    full = _leaves(base._get_obs_state_dict(info), base.num_envs)
    # Some tasks ask the one, some the other, whether they are to show their state.
    mode, struct = base._obs_mode, base.obs_mode_struct
    base._obs_mode = "rgb"
    base.obs_mode_struct = dataclasses.replace(struct, state=False, state_dict=False)
    shown = {"agent": base._get_obs_agent(), "extra": base._get_obs_extra(info)}
    shown = _leaves(shown, base.num_envs)
    base._obs_mode, base.obs_mode_struct = mode, struct
    kept: list[int] = []
    start = 0
    for name, size in full.items():
        if name in shown and name not in tells:
            kept += range(start, start + size)
        start += size
    return tuple(kept)


def _leaves(tree: Mapping[str, Any], num_envs: int, prefix: str = "") -> dict[str, int]:
    """Path -> number of components, in the order in which ManiSkill flattens an observation."""
    leaves: dict[str, int] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            leaves |= _leaves(value, num_envs, f"{prefix}{key}.")
        else:
            leaves[prefix + key] = int(np.prod(np.shape(value))) // num_envs
    return leaves
