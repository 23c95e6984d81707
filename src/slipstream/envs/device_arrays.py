"""Batches of observations and actions that stay on a torch device."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from slipstream.envs.spaces import ActionScale, channels_last
from slipstream.spec import ArraySpec


class DeviceArrays:
    """torch tensors; but for what `fetch` is asked for, none of them leaves its device."""

    def __init__(self, scale: ActionScale, device: torch.device | str) -> None:
        self._device = torch.device(device)
        self._scale = scale
        self._bounds = [self._on_device(bound) for bound in (scale.low, scale.high)]
        low, high = self._bounds
        self._centre, self._half = (low + high) / 2, (high - low) / 2

    def obs(self, raw: Any, spec: Mapping[str, ArraySpec]) -> dict[str, Tensor]:
        """See `Arrays`; a copy, for simulators write the next step into the same memory."""
        parts = raw if isinstance(raw, Mapping) else {next(iter(spec)): raw}
        obs: dict[str, Tensor] = {}
        for key, array in spec.items():
            rows = channels_last(torch.as_tensor(parts[key]), array.shape)
            owned = rows.to(self._device, getattr(torch, array.dtype), copy=True)
            obs[key] = owned.detach().reshape(len(rows), *array.shape)
        return obs

    def merged(
        self, obs: Mapping[str, Tensor], other: Mapping[str, Tensor], rows: np.ndarray
    ) -> dict[str, Tensor]:
        """See `Arrays`."""
        chosen = self._on_device(rows)
        return {
            key: torch.where(chosen.view(-1, *[1] * (value.dim() - 1)), other[key], value)
            for key, value in obs.items()
        }

    def zeroed(self, value: Tensor, rows: np.ndarray) -> Tensor:
        """See `Arrays`."""
        return value.masked_fill(self._on_device(rows)[:, None], 0)

    def vector(self, value: Any) -> Tensor:
        """See `Arrays`."""
        return torch.as_tensor(value).to(self._device, torch.float32)

    def to_env(self, action: Any, num_envs: int) -> Tensor:
        """See `Arrays`, but for numbers that are not finite: `finite` tells them afterwards.

        To ask at once would be a second transfer in each step.
        """
        action = torch.as_tensor(action).detach().to(self._device, torch.float64)
        self._scale.check_shape(tuple(action.shape), num_envs)
        low, high = self._bounds
        action = torch.clamp(action * self._half + self._centre, low, high)
        dtype = getattr(torch, np.dtype(self._scale.dtype).name)
        return action.reshape(num_envs, *self._scale.shape).to(dtype)

    def finite(self, obs: Mapping[str, Tensor], action: Any = None) -> Tensor:
        """See `Arrays`."""
        rows = [value.isfinite().all(1) for value in obs.values() if value.dtype == torch.float32]
        if action is not None:
            rows.append(torch.as_tensor(action).to(self._device).isfinite().all(1))
        if not rows:
            count = len(next(iter(obs.values())))
            return torch.ones(count, dtype=torch.bool, device=self._device)
        return torch.stack(rows).all(0)

    def fetch(self, values: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """See `Arrays`; float64."""
        rows = [torch.as_tensor(value).to(self._device, torch.float64) for value in values.values()]
        host = torch.stack(rows).detach().cpu().numpy()
        return dict(zip(values, host, strict=True))

    def _on_device(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self._device)
