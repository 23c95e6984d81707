"""A frozen encoder: the replay holds embeddings of images in their place."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch

from slipstream.networks import Actor
from slipstream.networks.inputs import embedding_key
from slipstream.replay.buffer import ReplayBuffer
from slipstream.spec import ArraySpec, EnvSpec

ENCODED_AT_ONCE = 256


class Embedder:
    """Turns the images that an actor reads into its own embeddings of them, once each.

    Its encoders are frozen by this: an embedding would be of no use once they had moved.

    Args:
        actor: the policy whose encoders are used.
    """

    def __init__(self, actor: Actor) -> None:
        self.actor = actor
        self.keys = tuple(actor.inputs.encoders)
        actor.inputs.encoders.requires_grad_(False)

    def spec(self, spec: EnvSpec) -> EnvSpec:
        """The observations with embeddings in place of the images."""
        obs: dict[str, ArraySpec] = {}
        sizes = dict(zip(self.actor.inputs.keys, self.actor.inputs.sizes, strict=True))
        for key, value in spec.obs.items():
            if key in self.keys:
                obs[embedding_key(key)] = ArraySpec((sizes[key],))
            else:
                obs[key] = value
        return replace(spec, obs=obs)

    @torch.no_grad()
    def obs(self, obs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Observations key -> (N, *) of the environments, embedded."""
        found: dict[str, np.ndarray] = {}
        for key, value in obs.items():
            if key in self.keys:
                images = torch.as_tensor(value).to(self.actor.device)
                embedded = self.actor.inputs.encoders[key](images)
                found[embedding_key(key)] = embedded.cpu().numpy()
            else:
                found[key] = value
        return found

    @torch.no_grad()
    def replay(self, replay: ReplayBuffer, capacity: int, keep: int | None) -> ReplayBuffer:
        """A replay that goes on where this one stands, with embeddings in place of the images."""
        kept = replay.resized(capacity, keep)
        columns: dict[str, torch.Tensor] = {}
        for key in self.keys:
            rows, encode = kept.rows(key), self.actor.inputs.encoders[key]
            parts = [
                encode(rows[start : start + ENCODED_AT_ONCE].to(self.actor.device))
                for start in range(0, len(rows), ENCODED_AT_ONCE)
            ]
            columns[embedding_key(key)] = torch.cat(parts)
        return kept.with_columns(self.spec(replay.spec), columns)
