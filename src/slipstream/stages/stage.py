"""A stage: who collects, who learns, and who is cloned meanwhile."""

from collections.abc import Collection
from typing import Any

from torch import Tensor

from slipstream.networks import Actor
from slipstream.replay.buffer import ReplayBuffer
from slipstream.replay.sampling import num_windows
from slipstream.stages.imitation import Imitation
from slipstream.stages.learners import Learner


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

    @property
    def ready(self) -> bool:
        """Whether the replay holds enough for a batch."""
        return self.replay.num_transitions(self.context_length) >= self.batch_size

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
            metrics |= self.learner.update(batch)
        return metrics

    def state_dict(self) -> dict[str, Any]:
        """What must survive a kill, beside networks and replay."""
        imitation = None if self.imitation is None else self.imitation.state_dict()
        return {"learner": self.learner.state_dict(), "imitation": imitation}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.learner.load_state_dict(state["learner"])
        if self.imitation is not None:
            self.imitation.load_state_dict(state["imitation"])
