"""A frozen encoder: the replay holds embeddings of images in their place."""

from collections.abc import Mapping

import torch
from torch import Tensor

from slipstream.envs.arrays import Array
from slipstream.networks import Actor
from slipstream.networks.inputs import embedding_key
from slipstream.replay.buffer import ReplayBuffer
from slipstream.spec import SIM_STATE
from slipstream.stages.frames import Frames


class Embedder:
    """Turns the images that an actor reads into its own embeddings of them, once each.

    Its encoders are frozen by this: an embedding would be of no use once they had moved.

    Args:
        actor: the policy whose encoders are used.
        frames: render what a replay holds as simulator states; None where it holds images.
    """

    def __init__(self, actor: Actor, frames: Frames | None = None) -> None:
        self.actor = actor
        self.frames = frames
        self.keys = tuple(actor.inputs.encoders)
        actor.inputs.encoders.requires_grad_(False)

    @torch.no_grad()
    def obs(self, obs: Mapping[str, Array]) -> dict[str, Array]:
        """Observations key -> (N, *) of the environments, embedded; embeddings where they arise."""
        found: dict[str, Array] = {}
        for key, value in obs.items():
            if key in self.keys:
                images = torch.as_tensor(value).to(self.actor.device)
                found[embedding_key(key)] = self.actor.inputs.encoders[key](images)
            else:
                found[key] = value
        return found

    @torch.no_grad()
    def derive(self, replay: ReplayBuffer, rows: Tensor) -> dict[str, Tensor]:
        """Embeddings of flat rows (R,) of a replay: key -> (R, embed_size)."""
        images: Mapping[str, Tensor]
        if self.frames is not None and SIM_STATE in replay.spec.obs:
            images = self.frames.render(replay, rows)
        else:
            images = {key: replay.observations(key, rows) for key in self.keys}
        return {
            embedding_key(key): self.actor.inputs.encoders[key](images[key].to(self.actor.device))
            for key in self.keys
        }
