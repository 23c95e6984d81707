"""What a run keeps of its experience, how large that is, and where it will lie."""

from dataclasses import dataclass, replace
from typing import Literal

import torch

from slipstream.errors import SlipstreamError
from slipstream.networks.inputs import FROZEN, OWN, embedding_key
from slipstream.replay import Placement, ReplayBuffer
from slipstream.replay.placement import Where, describe
from slipstream.spec import ArraySpec, EnvSpec

Name = Literal["accelerate", "frames", "extra", "online"]
WORDS = {
    "accelerate": "replay of stage accelerate",
    "frames": "images to clone from",
    "extra": "extra episodes to clone from",
    "online": "replay of stage online",
}


@dataclass(frozen=True)
class Holding:
    """A replay that a run will have.

    Attributes:
        spec: of what a row holds.
        capacity: rows.
        num_envs: environments that are stored side by side.
    """

    spec: EnvSpec
    capacity: int
    num_envs: int = 1

    @property
    def num_bytes(self) -> int:
        """What it takes."""
        return ReplayBuffer.bytes_required(self.spec, self.capacity, self.num_envs)


def images_of(spec: EnvSpec) -> frozenset[str]:
    """The observations that are images."""
    return frozenset(key for key, value in spec.obs.items() if len(value.shape) == 3)


def embedded(spec: EnvSpec, embed_size: int, beside: bool) -> EnvSpec:
    """The observations with embeddings in place of images, or `beside` them."""
    images = images_of(spec)
    obs: dict[str, ArraySpec] = {}
    for key, value in spec.obs.items():
        if key not in images or beside:
            obs[key] = value
        if key in images:
            obs[embedding_key(key, FROZEN if beside else OWN)] = ArraySpec((embed_size,))
    return replace(spec, obs=obs)


def place(
    holdings: dict[Name, Holding], placement: Placement, device: torch.device
) -> dict[Name, Where]:
    """Find a place for everything before any of it is allocated.

    Raises:
        SlipstreamError: not all of it fits.
    """
    free = placement.room(device)
    places: dict[Name, Where] = {}
    for name, holding in holdings.items():
        fitting: list[Where] = [where for where, room in free.items() if holding.num_bytes <= room]
        if not fitting:
            room = ", ".join(
                f"{value / 2**30:.2f} GiB are left {describe(where, device)}"
                for where, value in free.items()
            )
            raise SlipstreamError(
                f"{say(name, holding)} does not fit: {room}; of all that the "
                f"run keeps ({', '.join(say(*item) for item in holdings.items())}) make something "
                "smaller" + ("" if placement.wanted == "auto" else ", or change --replay-device")
            )
        places[name] = fitting[0]
        free[fitting[0]] -= holding.num_bytes
    return places


def say(name: Name, holding: Holding) -> str:
    """One of a run's replays in words."""
    return f"{WORDS[name]}: {holding.capacity:,} rows, {holding.num_bytes / 2**20:,.1f} MiB"
