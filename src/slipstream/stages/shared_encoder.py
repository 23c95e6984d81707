"""One image encoder for policies and critics, moved by the critics' loss alone.

As in DrQ-v2 (Yarats et al. 2021, arXiv 2107.09645) and in SAC with an autoencoder (SAC+AE, Yarats
et al. 2019, arXiv 1910.01741): what is worth seeing is learnt from values, which say more of an
image than the policy's gradient does. A policy reads the embeddings detached, so the two losses
never pull at the same weights.
"""

from collections.abc import Collection
from dataclasses import replace

import torch
from torch import nn

from slipstream.algorithms.optim import movable
from slipstream.batch import Batch
from slipstream.networks import Actor, Critic
from slipstream.networks.inputs import OWN, TARGET, embedding_key


def share_encoder(actor: Actor, critic: Critic) -> None:
    """Let a policy read images through the critics' encoder, where both read the same images.

    Its own is dropped.
    """
    if actor.inputs.encoders and actor.inputs.encodes_like(critic.inputs):
        actor.inputs.borrow(critic.inputs)


def keep_encoder(borrower: Actor, critic: Critic, critic_target: Critic) -> None:
    """Give fresh critics the encoder that a policy reads by, and lend it: new values, not eyes."""
    for each in (critic, critic_target):
        each.inputs.encoders.load_state_dict(borrower.inputs.encoders.state_dict())
    borrower.inputs.borrow(critic.inputs)


def freeze_target(critic: Critic, critic_target: Critic) -> None:
    """Let the targets see by the critics' encoder, which is frozen, rather than a slower copy."""
    critic_target.inputs.encoders.load_state_dict(critic.inputs.encoders.state_dict())
    critic_target.inputs.embedded_as = OWN


class SharedEncoder:
    """Encodes the images of a batch once for all networks that learn from it.

    Args:
        critic: whose encoder a policy may borrow.
        critic_target: whose encoder is its slower copy; reads its embeddings from now on.
    """

    def __init__(self, critic: Critic, critic_target: Critic) -> None:
        self._encoders = critic.inputs.encoders
        self._target_encoders = critic_target.inputs.encoders
        critic_target.inputs.embedded_as = TARGET

    @classmethod
    def of(
        cls, collector: Actor, keys: Collection[str], critic: Critic, critic_target: Critic
    ) -> "SharedEncoder | None":
        """One for these networks; None where there is nothing to encode, or not for all at once.

        Args:
            collector: the policy that learns.
            keys: observations that it reads.
            critic: the critics.
            critic_target: their targets.
        """
        own = set[str]() if collector.inputs.borrowed else {*collector.inputs.encoders}
        if own & {*keys} or not movable(critic.inputs.encoders.parameters()):
            return None
        return cls(critic, critic_target)

    def __call__(self, batch: Batch) -> Batch:
        """The batch with embeddings in place of images.

        Gradients flow from the embeddings of `obs` into the critics' encoder. A policy that is
        moved after the critics meets the embeddings from before their step, as in DrQ-v2.
        """
        window = dict(batch.window)
        for key, encoder in self._encoders.items():
            images = window.pop(key)
            learnt = encoder(images[:, :-1])
            with torch.no_grad():
                newest = encoder(images[:, -1:])  # only ever the next observation
                target = self._target_encoders[key](images[:, 1:])
            window[embedding_key(key)] = torch.cat([learnt, newest], 1)
            # Targets never look at the first frame: NaN, so that it shows if they do.
            unread = torch.full_like(target[:, :1], torch.nan)
            window[embedding_key(key, TARGET)] = torch.cat([unread, target], 1)
        return replace(batch, window=window)


@torch.no_grad()
def encoded(batch: Batch, encoders: nn.ModuleDict) -> Batch:
    """The batch with embeddings in place of images, for who reads `obs` and moves no encoder."""
    window = dict(batch.window)
    for key, encoder in encoders.items():
        seen = encoder(window.pop(key)[:, :-1])
        window[embedding_key(key)] = torch.cat([seen, torch.full_like(seen[:, :1], torch.nan)], 1)
    return replace(batch, window=window)
