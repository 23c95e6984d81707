"""One step of a policy in the environment's own units: what is deployed."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from slipstream.batch import Obs
from slipstream.envs.spaces import channels_last
from slipstream.errors import SlipstreamError
from slipstream.networks import Actor
from slipstream.networks.heads import SquashedGaussian
from slipstream.networks.memory import Carry
from slipstream.spec import ArraySpec, EnvSpec, difference_key

PREV_ACTION, STARTED = "prev_action", "started"

Observation = ArrayLike | Mapping[str, ArrayLike]
"""(*) of one environment or (N, *) of several; a dict of such where a policy reads several keys."""


class PolicyStep(nn.Module):
    """`Actor.step` with nothing left to do around it; pure, so that it can be traced.

    Actions come out rescaled to the environment's bounds, and a policy that reads its previous
    action, or by how much an observation changed, remembers in the carry what that takes, so that
    whoever runs it shows observations alone.

    Attributes:
        obs_spec: observation key -> its shape, for the keys that it has to be shown.
        low: (A,) lowest action.
        high: (A,) highest.
    """

    low: Tensor
    high: Tensor
    centre: Tensor
    scale: Tensor

    def __init__(self, actor: Actor, spec: EnvSpec) -> None:
        """Wrap an actor; it is neither copied nor changed."""
        super().__init__()
        self.actor = actor
        self.spec = spec
        keys = actor.inputs.keys
        self.remembers_action = PREV_ACTION in keys
        self.compared = tuple(key for key in keys if difference_key(key) in keys)
        remembered = {PREV_ACTION, *map(difference_key, self.compared)}
        self.obs_spec = {key: spec.obs[key] for key in keys if key not in remembered}
        low, high = _within(spec.action_low, np.inf), _within(spec.action_high, -np.inf)
        bounds = {"low": low, "high": high, "centre": (low + high) / 2, "scale": (high - low) / 2}
        for name, value in bounds.items():
            self.register_buffer(name, value, persistent=False)
        self.to(actor.device)

    def initial_carry(self, num_envs: int) -> Carry:
        """The memory at an episode's start, for `num_envs` environments."""
        carry = self.actor.initial_carry(num_envs)
        if self.remembers_action:
            carry[PREV_ACTION] = self.low.new_zeros(num_envs, len(self.low))
        for key in self.compared:
            carry[_last(key)] = self.low.new_zeros(num_envs, self.spec.obs[key].size)
        if self.compared:
            carry[STARTED] = self.low.new_zeros(num_envs, 1)
        return carry

    def forward(
        self, obs: Obs, carry: Carry, deterministic: bool = True
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Obs key -> (N, *) -> the action (N, A) in the environment's units, and the next carry.

        Where an observation holds the previous action, or a difference, that one counts, not what
        is remembered.
        `deterministic=False` samples from a policy that is a distribution.
        """
        carry = dict(carry)
        remembered = carry.pop(PREV_ACTION, None)
        if remembered is not None:
            obs = {PREV_ACTION: remembered, **obs}
        if self.compared:
            obs = {**self._changes(obs, carry), **obs}
        output, carry = self.actor.step(obs, carry)
        if isinstance(output, SquashedGaussian) and not deterministic:
            action = output.sample()
        else:
            action = output.mode
        carry = dict(carry)
        if remembered is not None:
            carry[PREV_ACTION] = action
        for key in self.compared:
            carry[_last(key)] = obs[key]
        if self.compared:
            carry[STARTED] = torch.ones_like(action[:, :1])
        # Clipped last: rounding may step over a bound.
        rescaled = torch.addcmul(self.centre, action, self.scale)
        return torch.clamp(rescaled, self.low, self.high), carry

    def _changes(self, obs: Obs, carry: dict[str, Tensor]) -> dict[str, Tensor]:
        """By how much observations changed, out of the carry; nothing at an episode's start."""
        started = carry.pop(STARTED)
        return {
            difference_key(key): (obs[key] - carry.pop(_last(key))) * started
            for key in self.compared
        }

    def read(self, obs: Observation) -> tuple[dict[str, Tensor], bool]:
        """Observations as a user has them, as tensors.

        Args:
            obs: of the keys in `obs_spec`, the previous action if at hand, others are ignored; an
                array instead of a dict where there is one key.

        Returns:
            Key -> (N, *), and whether they were of a single environment, without N.

        Raises:
            SlipstreamError: a key is missing, or a shape does not fit.
        """
        env_id, needed = self.spec.env_id, list(self.obs_spec)
        if not isinstance(obs, Mapping):
            if len(needed) > 1:
                raise SlipstreamError(
                    f"this policy of {env_id} reads {', '.join(needed)}: give a dict of arrays"
                )
            obs = {needed[0]: obs}
        if missing := [key for key in needed if key not in obs]:
            raise SlipstreamError(
                f"the observation has the keys {', '.join(obs)}, but this policy of {env_id} also "
                f"reads {', '.join(missing)}: add what is missing"
            )
        arrays: dict[str, np.ndarray] = {}
        rows: dict[str, int | None] = {}
        for key in (key for key in self.actor.inputs.keys if key in obs):
            arrays[key], rows[key] = _rows(obs[key], self.spec.obs[key], key, env_id)
        if len(set(rows.values())) > 1:
            raise SlipstreamError(
                f"the observations have the rows {rows}: give one row of each for each environment"
            )
        device = self.low.device
        tensors = {key: torch.from_numpy(value).to(device) for key, value in arrays.items()}
        return tensors, None in rows.values()


def _last(key: str) -> str:
    """What the carry calls the last observation of a key."""
    return f"last_{key}"


def _rows(
    value: ArrayLike, spec: ArraySpec, key: str, env_id: str
) -> tuple[np.ndarray, int | None]:
    """One observation as (N, *), and N; None where it came without N."""
    try:
        # A copy is made only of what torch cannot share: other dtypes, read-only memory.
        array = np.require(value, spec.dtype, ["C", "W"])
    except (TypeError, ValueError) as error:
        raise SlipstreamError(
            f"the observation '{key}' is no array of {spec.dtype} ({error}): give numbers"
        ) from error
    if spec.dtype == "uint8" and np.asarray(value).dtype != np.uint8:
        raise SlipstreamError(
            f"the observation '{key}' is {np.asarray(value).dtype}, but this policy of {env_id} "
            "reads images in uint8, 0 to 255: leave them unscaled"
        )
    if array.shape == spec.shape:
        return array[None], None
    if array.shape[1:] != spec.shape or not array.ndim:
        if array.ndim and (several := _flat(array, spec)) is not None:
            return several, len(array)
        if (one := _flat(array[None], spec)) is not None:
            return one, None
        batch = ", ".join(map(str, ("N", *spec.shape)))
        raise SlipstreamError(
            f"the observation '{key}' has the shape {array.shape}, but this policy of {env_id} "
            f"reads {spec.shape}, or ({batch}) of N environments: show it what it was trained on"
        )
    return array, len(array)


def _flat(rows: np.ndarray, spec: ArraySpec) -> np.ndarray | None:
    """Rows (N, *) as the policy reads them, of what an environment may show.

    Images with their channels first or without a dimension for the only one, vectors in any shape.
    """
    rows = np.ascontiguousarray(channels_last(rows, spec.shape))
    shape = rows.shape[1:]
    if shape == spec.shape:
        return rows
    vector = len(spec.shape) == 1
    fits = int(np.prod(shape)) == spec.size if vector else (*shape, 1) == spec.shape
    return rows.reshape(len(rows), *spec.shape) if fits else None


def _within(bounds: Sequence[float], towards: float) -> Tensor:
    """Bounds as float32, none of them rounded to the outside."""
    exact = np.asarray(bounds, np.float64)
    rounded = exact.astype(np.float32)
    outside = rounded < exact if towards > 0 else rounded > exact
    return torch.from_numpy(np.where(outside, np.nextafter(rounded, np.float32(towards)), rounded))
