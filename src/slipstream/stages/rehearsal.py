"""An accelerator made of data: cloned from it, then valued by critics, before any env step."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Ge
from torch import Tensor

from slipstream.algorithms.cloning import Cloning
from slipstream.networks import Actor, common_context
from slipstream.replay.buffer import ReplayBuffer
from slipstream.replay.episodes import Episodes, fill, read_replay
from slipstream.replay.sampling import num_windows
from slipstream.settings import Count, NotNegative, PositiveShare, Settings
from slipstream.stages.imitation import CloningConfig


@dataclass(frozen=True)
class DataConfig(Settings, section="data"):
    """What is learnt from data before the first env step (accelerator=minari: or replay:)."""

    rows: Annotated[int, Ge(2)] = 1_000_000
    """Rows of the data to take at most, the newest episodes; they come on top of
    accelerate.replay_capacity."""
    top: PositiveShare = 0.5
    """Share of its episodes, those with the highest returns, that are cloned. The critics learn
    from all of them."""
    clone_updates: Count = 5_000
    """Updates that clone its actions into the accelerator."""
    critic_updates: NotNegative = 5_000
    """Updates of the critics on it after that, towards the values of that clone."""


class Rehearsal:
    """Clones the stored actions into the accelerator, then lets the critics learn its values.

    Fresh critics would lead a clone astray within two thousand steps, and so would ones that know
    the data's policy but not its clone: what bootstraps them is the clone's own action.

    Args:
        config: what is learnt, and how long.
        cloning: learning rate and batch size.
        actor: the accelerator; nothing of it requires gradients before and after.
        replay: the run's, which holds the data and nothing else yet.
        learn: makes a number of updates of the critics.
        segment: consecutive steps drawn together where the actor encodes images.
    """

    def __init__(
        self,
        config: DataConfig,
        cloning: CloningConfig,
        actor: Actor,
        replay: ReplayBuffer,
        learn: Callable[[int], dict[str, Tensor]],
        segment: int,
    ) -> None:
        self.config = config
        self.actor, self.replay = actor, replay
        self.batch_size = cloning.batch_size
        # Its encoder learns while it is cloned, though nothing of it does now.
        self.loss_steps = max(actor.loss_steps, segment if actor.inputs.encoders else 1)
        self.context_length = common_context((actor,), self.loss_steps)
        self.cloning = Cloning(actor, cloning.lr)
        self.num_critic_updates = 0
        self.metrics: dict[str, Tensor] = {}
        self._learn = learn

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to learn from the data."""
        return (
            self.cloning.num_updates >= self.config.clone_updates
            and self.num_critic_updates >= self.config.critic_updates
        )

    def run(self, stopped: Callable[[], bool]) -> dict[str, Any]:
        """Go on until it is finished, or `stopped` says so.

        Returns:
            What it learnt from: `rows` (transitions), `episodes`, `episodes_cloned`, the mean
            returns `episode_return` and `episode_return_cloned`; and the last updates' metrics, of
            cloning with `clone_` before them.
        """
        episodes = read_replay(self.replay.state_dict())
        best = episodes.best(self.config.top)
        if self.cloning.num_updates < self.config.clone_updates:
            source = self._replay_of(best)
            self.actor.requires_grad_(True)
            while self.cloning.num_updates < self.config.clone_updates and not stopped():
                cloned = self._clone(source)
                self.metrics = {f"clone_{name}": value for name, value in cloned.items()}
            self.actor.requires_grad_(False)
        while not self.finished and not stopped():
            self.metrics |= self._learn(1)
            self.num_critic_updates += 1
        return {
            "rows": episodes.num_transitions,
            "episodes": len(episodes.starts),
            "episodes_cloned": len(best.starts),
            "episode_return": float(episodes.returns.mean()),
            "episode_return_cloned": float(best.returns.mean()),
            **self.metrics,
        }

    def _replay_of(self, episodes: Episodes) -> ReplayBuffer:
        rows = max(episodes.capacity(1), self.context_length + 1)
        replay = ReplayBuffer(self.replay.spec, rows, device=self.replay.device)
        fill(replay, episodes)
        return replay

    def _clone(self, source: ReplayBuffer) -> dict[str, Tensor]:
        windows = num_windows(self.batch_size, self.loss_steps)
        batch = source.sample(
            windows, self.context_length, self.loss_steps, keys=self.actor.inputs.keys
        )
        return self.cloning.update(batch, batch.action[:, -batch.loss_steps :])

    def state_dict(self) -> dict[str, Any]:
        """What must survive a kill, beside the networks and the replay."""
        return {
            "cloning": self.cloning.state_dict(),
            "num_critic_updates": self.num_critic_updates,
            "metrics": self.metrics,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.cloning.load_state_dict(state["cloning"])
        self.num_critic_updates = state["num_critic_updates"]
        self.metrics = state["metrics"]
