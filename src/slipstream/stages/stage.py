"""A stage: who collects, who learns, and who is cloned meanwhile."""

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor

from slipstream.algorithms.optim import movable
from slipstream.networks import Actor
from slipstream.replay.buffer import ReplayBuffer
from slipstream.replay.sampling import num_windows
from slipstream.stages.imitation import Imitation
from slipstream.stages.learners import Learner
from slipstream.stages.rehearsal import Rehearsal
from slipstream.stages.shared_encoder import SharedEncoder
from slipstream.stages.shift import shifted


class Stage:
    """Either stage; they differ in what they are made of.

    Attributes:
        name: "accelerate" or "online".
        collector: the actor that interacts.
        learner: moves that actor and the run's critics.
        replay: where it samples.
        batch_size: steps an update learns from; with several in a window, fewer windows.
        context_length: steps of a window.
        loss_steps: its trailing steps that count in the loss.
        keys: observations that actor and critics read.
        imitation: clones the transformer from the collector (stage 1), or None.
        random_share: share of uniform actions where it explores widely.
        shift: pixels by which the images that it learns from are shifted at most.
        shared_encoder: encodes them for a policy that borrows the critics' encoder, or None.
        rehearsal: makes the collector of data first (stage 1), or None.
    """

    def __init__(
        self,
        name: str,
        collector: Actor,
        learner: Learner,
        replay: ReplayBuffer,
        batch_size: int,
        context_length: int,
        loss_steps: int,
        keys: Collection[str],
        imitation: Imitation | None = None,
        random_share: float = 0.0,
        shift: int = 0,
        shared_encoder: SharedEncoder | None = None,
    ) -> None:
        self.name = name
        self.collector = collector
        self.learner = learner
        self.replay = replay
        self.batch_size = batch_size
        self.context_length = context_length
        self.loss_steps = loss_steps
        self.keys = keys
        self.imitation = imitation
        self.random_share = random_share
        self.shift = shift
        self.shared_encoder = shared_encoder
        self.rehearsal: Rehearsal | None = None
        self.frozen = not movable(collector.own_parameters())

    @property
    def ready(self) -> bool:
        """Whether the replay holds enough for a batch, or as much as it ever will."""
        found = self.replay.num_transitions(self.context_length)
        return found >= self.batch_size or (found > 0 and self.replay.is_full)

    def explore(self, output: Any, widely: bool = False) -> Tensor:
        """The action to take, (N, A) in [-1, 1], from the collector's output.

        A policy that improves has tried worse actions before, and its critics know what they are
        worth. Those of one that was good from the beginning do not, and a clone that follows them
        falls: so where the collector stays as it is, or `widely` is asked for, a share of the
        actions is uniform.
        """
        action = self.learner.explore(output)
        if self.random_share and (widely or self.frozen):
            uniform = torch.rand_like(action) * 2 - 1
            chosen = torch.rand_like(action[:, :1]) < self.random_share
            action = torch.where(chosen, uniform, action)
        return action

    def learn(self, num_updates: int) -> dict[str, Tensor]:
        """Update policy and critics; the newest metrics."""
        metrics: dict[str, Tensor] = {}
        for _ in range(num_updates):
            batch = self.replay.sample(
                num_windows(self.batch_size, self.loss_steps),
                self.context_length,
                self.loss_steps,
                keys=self.keys,
            )
            batch = shifted(batch, self.shift)
            if self.shared_encoder is not None:
                batch = self.shared_encoder(batch)
            metrics |= self.learner.update(batch)
        return metrics

    def state_dict(self) -> dict[str, Any]:
        """What must survive a kill, beside networks and replay."""
        imitation = None if self.imitation is None else self.imitation.state_dict()
        state = {"learner": self.learner.state_dict(), "imitation": imitation}
        if self.rehearsal is not None:
            state["rehearsal"] = self.rehearsal.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.learner.load_state_dict(state["learner"])
        if self.imitation is not None:
            self.imitation.load_state_dict(state["imitation"])
        if self.rehearsal is not None:
            self.rehearsal.load_state_dict(state["rehearsal"])
