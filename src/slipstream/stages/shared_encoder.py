"""One image encoder for a policy and its critics, moved by the critics' loss alone.

As in DrQ-v2 (Yarats et al. 2021, arXiv 2107.09645) and in SAC with an autoencoder (SAC+AE, Yarats
et al. 2019, arXiv 1910.01741): what is worth seeing is learnt from values, which say more of an
image than the policy's gradient does. The policy reads the embeddings detached, so the two losses
never pull at the same weights.
"""

from dataclasses import replace

import torch

from slipstream.batch import Batch
from slipstream.networks import Actor, Critic
from slipstream.networks.inputs import TARGET, embedding_key


def share_encoder(actor: Actor, critic: Critic, critic_target: Critic) -> None:
    """Let a policy read images through the critics' encoder, where both read the same images.

    Its own is dropped. The targets keep a slower copy, also for a slower copy of the policy.
    """
    keys = set(actor.inputs.encoders)
    if keys and keys == set(critic.inputs.encoders):
        critic_target.inputs.embedded_as = TARGET
        actor.inputs.borrow(critic.inputs)


class SharedEncoder:
    """Encodes the images of a batch once for all networks that learn from it.

    Args:
        critic: whose encoder the policy borrows.
        critic_target: whose encoder is its slower copy.
    """

    def __init__(self, critic: Critic, critic_target: Critic) -> None:
        self._encoders = critic.inputs.encoders
        self._target_encoders = critic_target.inputs.encoders

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
