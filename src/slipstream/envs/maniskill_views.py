"""What the sensors of a ManiSkill task see, of all its environments at once."""

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from slipstream.errors import SlipstreamError


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
