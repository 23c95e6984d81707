"""Hiding components of a vector observation, so that a task is only partially observable."""

import re
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

import gymnasium as gym
import numpy as np

from slipstream.envs.mujoco_halves import halves, is_simulated
from slipstream.errors import SlipstreamError
from slipstream.spec import PRIVILEGED

# Zelezetsky et al. 2025 (arXiv 2509.26137). The kept components, and the sizes of the observation
# for which they were meant: Ant with and without contact forces begins alike.
_PAPER: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "HalfCheetah": ((0, 1, 2, 3, 8, 9, 10, 11, 12), (17,)),
    "Hopper": ((0, 1, 2, 3, 4), (11,)),
    "Ant": (tuple(range(13)), (27, 105, 111)),
}

WORDS = ("none", "paper", "positions", "velocities")


def mask_indices(mask: str, env: gym.Env[Any, Any]) -> tuple[int, ...]:
    """Which components of an environment's observation a mask keeps.

    Args:
        mask: `none` keeps all. `paper` keeps what Zelezetsky et al. (2025) kept of HalfCheetah,
            Hopper and Ant. `positions` keeps the part of a MuJoCo observation that is made of
            `qpos`, `velocities` the part made of `qvel`, as `halves` finds them; whatever is
            neither (forces, inertias, velocities of bodies, the tip of an arm, what is constant)
            is dropped by both.
            Anything else is a list of components and ranges, such as `0-3,8-12`, kept in the order
            in which it is written.
        env: the environment, possibly wrapped, as long as no wrapper rearranges its observation.

    Returns:
        Indices into the observation.

    Raises:
        SlipstreamError: there is no vector to be masked, the mask is not known for this
            environment, or the list is malformed or does not fit.
    """
    size = masked_vector(env)[1].shape[0]
    ranges = parse_mask(mask)
    if ranges is not None:
        last = max(each[-1] for each in ranges)
        if last >= size:
            raise SlipstreamError(
                f"mask {mask!r} keeps component {last}, but the observation of {env_name(env)} has "
                f"{size}: use 0 to {size - 1}"
            )
        return tuple(index for each in ranges for index in each)
    if mask == "none":
        return tuple(range(size))
    if mask == "paper":
        return _paper(env, size)
    positions, velocities = _halves(mask, env, size)
    return positions if mask == "positions" else velocities


def parse_mask(mask: str) -> tuple[range, ...] | None:
    """Read a mask as far as that is possible without its environment.

    Returns:
        The listed components as ranges, in the order written; None for one of `WORDS`.

    Raises:
        SlipstreamError: neither one of `WORDS` nor a list of distinct components.
    """
    if mask in WORDS:
        return None
    if not mask.strip():
        raise SlipstreamError(f"the mask is empty: use {', '.join(WORDS)} or a list such as 0-3,8")
    ranges = tuple(_range(part.strip(), mask) for part in mask.split(","))
    ordered = sorted(ranges, key=lambda each: each.start)
    for before, after in pairwise(ordered):
        if after.start < before.stop:
            raise SlipstreamError(
                f"mask {mask!r} names component {after.start} twice: name each component once"
            )
    return ranges


class MaskObservation(gym.ObservationWrapper[Any, Any, Any]):
    """Shows some components of a vector observation, (n,) -> (len(kept),)."""

    def __init__(self, env: gym.Env[Any, Any], kept: Iterable[int]) -> None:
        """Cut the observation space down.

        Args:
            env: an environment with a vector observation, or with one in a dict.
            kept: indices into it, from `mask_indices`; they are shown in this order.

        Raises:
            SlipstreamError: there is no vector, or several.
        """
        super().__init__(env)
        self._key, space = masked_vector(env)
        self.kept = np.array(tuple(kept), np.intp)
        # Any: gymnasium's annotation asks for a type where every dtype works.
        dtype: Any = space.dtype
        cut = gym.spaces.Box(space.low[self.kept], space.high[self.kept], dtype=dtype)
        shown = env.observation_space
        if isinstance(shown, gym.spaces.Dict):
            self.observation_space = gym.spaces.Dict({**shown.spaces, self._key: cut})
        else:
            self.observation_space = cut

    def observation(self, observation: Any) -> Any:
        """The kept components, in an array of their own."""
        if isinstance(observation, Mapping):
            return {**observation, self._key: observation[self._key][self.kept]}
        return observation[self.kept]


def masked_vector(env: gym.Env[Any, Any]) -> tuple[str, gym.spaces.Box]:
    """The vector of an observation that is masked, with its key.

    Returns:
        The observation itself, called `state`, where it is one vector; of a dict `state`, or the
        only vector that the policy sees.

    Raises:
        SlipstreamError: there is no vector, or several and none is called `state`.
    """
    space = env.observation_space
    parts = space.spaces if isinstance(space, gym.spaces.Dict) else {"state": space}
    vectors = {
        key: part
        for key, part in parts.items()
        if key != PRIVILEGED and isinstance(part, gym.spaces.Box) and len(part.shape) == 1
    }
    key = "state" if len(vectors) != 1 else next(iter(vectors))
    if key in vectors:
        return key, vectors[key]
    raise SlipstreamError(
        f"{env_name(env)} has {describe(space)}, but only a vector (a Box of one dimension; of "
        "several in a Dict the one called 'state') can be masked: pass a function that returns the "
        "environment in a wrapper that shows one"
    )


def describe(space: gym.Space[Any]) -> str:
    """An observation space in a few words."""
    if isinstance(space, gym.spaces.Dict):
        return f"a Dict observation of {', '.join(map(str, space.spaces))}"
    shape = f" of shape {space.shape}" if space.shape else ""
    return f"a {type(space).__name__}{shape} observation"


def env_name(env: gym.Env[Any, Any]) -> str:
    """The environment's id, or its class where it was not made from an id."""
    return type(env.unwrapped).__name__ if env.spec is None else env.spec.id


def _range(part: str, mask: str) -> range:
    match = re.fullmatch(r"([0-9]{1,9})(?:\s*-\s*([0-9]{1,9}))?", part)
    if match is None:
        raise SlipstreamError(
            f"mask {mask!r}: {part!r} is not a number or a range: use {', '.join(WORDS)} or a list "
            "such as 0-3,8"
        )
    first, last = int(match[1]), int(match[2] or match[1])
    if last < first:
        raise SlipstreamError(f"mask {mask!r}: the range {part} runs backwards: {last}-{first}?")
    return range(first, last + 1)


def _task(env: gym.Env[Any, Any]) -> str:
    """The name without version: Hopper of Hopper-v5, and of the class HopperEnv."""
    if env.spec is None:
        return type(env.unwrapped).__name__.removesuffix("Env")
    return re.sub(r"-v\d+$", "", env.spec.id)


def _paper(env: gym.Env[Any, Any], size: int) -> tuple[int, ...]:
    known = _PAPER.get(_task(env))
    if known is None:
        raise SlipstreamError(
            f"mask 'paper' is known for HalfCheetah, Hopper and Ant, not for {env_name(env)}: use "
            "positions, or a list such as 0-3,8"
        )
    indices, sizes = known
    if size not in sizes:
        raise SlipstreamError(
            f"mask 'paper' counts the components of {env_name(env)} as they are by default "
            f"({' or '.join(map(str, sizes))} of them), but here the observation has {size}: use "
            "positions, or a list such as 0-3,8"
        )
    return indices


def _halves(
    mask: str, env: gym.Env[Any, Any], size: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The indices made of qpos, and those made of qvel."""
    remedy = "give the components to keep, such as 0-3,8"
    if not is_simulated(env):
        raise SlipstreamError(
            f"mask {mask!r} asks MuJoCo what an observation is made of, and {env_name(env)} is no "
            f"MuJoCo environment as Gymnasium's are: {remedy}"
        )
    try:
        positions, velocities, total = halves(env)
    except Exception as error:
        raise SlipstreamError(
            f"mask {mask!r} cannot tell what the observation of {env_name(env)} is made of "
            f"({error}): {remedy}"
        ) from error
    if total != size:
        raise SlipstreamError(
            f"mask {mask!r}: {env_name(env)} makes observations of {total} components, but here "
            f"they have {size} (a wrapper changes them): {remedy}"
        )
    kept = positions if mask == "positions" else velocities
    if not kept:
        raise SlipstreamError(
            f"mask {mask!r} keeps nothing: no component of the observation of {env_name(env)} "
            f"follows {'qpos' if mask == 'positions' else 'qvel'} alone; {remedy}"
        )
    return positions, velocities
