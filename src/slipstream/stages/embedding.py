"""A frozen encoder: the replay holds embeddings of images, in their place or beside them."""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from slipstream.envs.arrays import Array
from slipstream.errors import SlipstreamError
from slipstream.networks import Actor, Critic
from slipstream.networks.inputs import FROZEN, OWN, embedding_key
from slipstream.replay.buffer import ReplayBuffer
from slipstream.spec import SIM_STATE
from slipstream.stages.frames import Frames

Kept = Literal["images", "embeddings", "both"]


def kept(freeze: bool | None, actors: Mapping[str, Actor], critic: Critic) -> Kept:
    """What the replay of stage 2 holds where the transformer reads images.

    Args:
        freeze: `OnlineConfig.freeze_encoder`.
        actors: those of the run.
        critic: its critics.

    Raises:
        SlipstreamError: an encoder that no stage 1 has made is to be frozen.
    """
    transformer = actors.get("transformer")
    if transformer is None or not transformer.inputs.encoders:
        return "images"
    borrowed = transformer.inputs.borrowed
    if "accelerator" not in actors:
        if freeze:
            raise SlipstreamError(
                "online.freeze_encoder is True, but this transformer starts from scratch: its "
                "encoder would stay random; leave it out"
            )
        return "images"
    if not (freeze or (freeze is None and not borrowed)):
        return "images"
    return "both" if critic.inputs.encoders and not borrowed else "embeddings"


class Embedder:
    """Turns the images that an actor reads into its own embeddings of them, once each.

    Its encoders are frozen by this: an embedding would be of no use once they had moved.

    Args:
        actor: the policy whose encoders are used.
        frames: render what a replay holds as simulator states; None where it holds images.
        beside: whether images stay beside their embeddings, for critics with an encoder that
            learns.
    """

    def __init__(self, actor: Actor, frames: Frames | None, beside: bool) -> None:
        self.actor = actor
        self.frames = frames
        self.beside = beside
        whose = actor.inputs.embedded_as = FROZEN if beside else OWN
        self.names = {key: embedding_key(key, whose) for key in actor.inputs.encoders}
        actor.inputs.encoders.requires_grad_(False)

    @torch.no_grad()
    def obs(self, obs: Mapping[str, Array]) -> dict[str, Array]:
        """Observations key -> (N, *) of the environments, embedded; embeddings where they arise."""
        found: dict[str, Array] = {}
        for key, value in obs.items():
            if key in self.names:
                images = torch.as_tensor(value).to(self.actor.device)
                found[self.names[key]] = self.actor.inputs.encoders[key](images)
            if key not in self.names or self.beside:
                found[key] = value
        return found

    @torch.no_grad()
    def derive(self, replay: ReplayBuffer, rows: Tensor) -> dict[str, Tensor]:
        """Embeddings of flat rows (R,) of a replay: key -> (R, embed_size)."""
        images: Mapping[str, Tensor]
        if self.frames is not None and SIM_STATE in replay.spec.obs:
            images = self.frames.render(replay, rows)
        else:
            images = {key: replay.observations(key, rows) for key in self.names}
        return {
            name: self.actor.inputs.encoders[key](images[key].to(self.actor.device))
            for key, name in self.names.items()
        }


def keys_read(network: Actor | Critic, embedder: Embedder | None) -> set[str]:
    """The observations of a stage's replay that a network reads."""
    if embedder is None or (embedder.beside and network is not embedder.actor):
        return {*network.inputs.keys}
    return {embedder.names.get(key, key) for key in network.inputs.keys}
