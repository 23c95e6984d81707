"""Where cloning gets its windows and labels from (stage 1)."""

import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge
from torch import Tensor

from slipstream.algorithms.cloning import Cloning
from slipstream.batch import Batch
from slipstream.errors import SlipstreamError
from slipstream.networks import Actor, Critic, common_context, common_loss_steps
from slipstream.replay.buffer import ReplayBuffer
from slipstream.replay.sampling import num_windows
from slipstream.settings import Count, NotNegative, Rate, Settings
from slipstream.stages.frames import Frames, SingleEnv
from slipstream.stages.interact import rollout
from slipstream.stages.shared_encoder import encoded
from slipstream.stages.shift import shifted


@dataclass(frozen=True)
class CloningConfig(Settings, section="cloning"):
    """How the transformer is cloned from the accelerator in stage 1."""

    enabled: bool = True
    """Clone at all; off for an accelerator alone."""
    source: Literal["relabel", "stored", "episodes"] = "relabel"
    """Windows and labels: windows of the replay labelled by the present accelerator (costs no env
    step), windows of the replay with the actions stored there, or noise-free episodes run for the
    purpose, as in the paper (their steps are counted)."""
    lr: Rate = 1e-3
    """Learning rate of cloning."""
    batch_size: Count = 128
    """Steps a cloning update learns from."""
    ascent: Rate = 0.0
    """Weight of the transformer's ascent on the accelerator's critic beside the cloning loss (the
    paper's second variant)."""
    every: NotNegative = 20
    """Env steps between the thin updates that run all along; 0 for none."""
    burst: NotNegative = 1000
    """Updates in a row before each check of the switch rule."""
    own_episodes: NotNegative = 0
    """Episodes of the transformer itself, labelled by the accelerator (DAgger), run before each
    burst, and before the first of all only after another burst; their steps are counted."""
    frames: Annotated[int, Ge(2)] = 10_000
    """Where there are images: rows, the newest, that are kept of extra episodes (own ones, or those
    of source=episodes); where they are rendered on demand also rows of the replay that are
    rendered to be cloned from."""
    episodes: Count = 10
    """With source=episodes: how many are run each time."""
    episodes_every: Count = 3000
    """With source=episodes: env steps between two collections; each is followed by one epoch. The
    first is made before the first burst at the latest."""
    shift: NotNegative = 0
    """Pixels by which the images that the transformer is cloned on are shifted at random, each way
    (the accelerator labels them as they were)."""
    copy_encoder: bool = False
    """Before the first burst, start the transformer's image encoder, if it has one of its own, as a
    copy of the accelerator's; both must read the same images."""

    def __post_init__(self) -> None:
        """Raise SlipstreamError where nothing would be cloned."""
        super().__post_init__()
        if self.enabled and self.source != "episodes" and not (self.every or self.burst):
            raise SlipstreamError(
                "cloning.every and cloning.burst are both 0, so nothing would ever be cloned; set "
                "one of them, or cloning.enabled to False"
            )


class Imitation:
    """The transformer learning to act as the accelerator does.

    Args:
        config: sources and periods.
        student: the transformer.
        teacher: the accelerator.
        critic: the accelerator's.
        replay: the run's replay.
        extra_env: for extra episodes.
        extra: empty, takes the rows of extra episodes.
        frames: rows of the replay with their images, where it holds simulator states; else None.
        segment: consecutive steps drawn together where the student encodes images.
        seed: of the extra episodes.
    """

    def __init__(
        self,
        config: CloningConfig,
        student: Actor,
        teacher: Actor,
        critic: Critic,
        replay: ReplayBuffer,
        extra_env: SingleEnv,
        extra: ReplayBuffer,
        frames: Frames | None,
        segment: int,
        seed: int,
    ) -> None:
        self.config = config
        self.student, self.teacher = student, teacher
        self.replay = replay
        self.cloning = Cloning(student, config.lr, critic, config.ascent)
        # A recurrent teacher labels after a whole window rather than after its burn-in alone: what
        # it gives out then is nearer to what it does with the state of the whole episode.
        self.loss_steps = common_loss_steps(student, segment)
        self.context_length = max(
            common_context((student,), self.loss_steps),
            teacher.context_length + self.loss_steps - 1,
        )
        self.extra, self.extra_env, self.frames = extra, extra_env, frames
        # Nobody moves an encoder here that both borrow, so both read the same embeddings.
        together = student.inputs.borrowed and student.inputs.encoders is teacher.inputs.encoders
        self._encoders = student.inputs.encoders if together and not config.shift else None
        self.keys = {*student.inputs.keys, *teacher.inputs.keys}
        if config.ascent:
            self.keys |= {*critic.inputs.keys}
        self.burst: tuple[float, float] | None = None
        self._seed = seed
        self._num_collections = 0
        self._must_copy = config.copy_encoder
        alike = student.inputs.encodes_like(teacher.inputs)
        if config.copy_encoder and not (student.inputs.encoders and alike):
            raise SlipstreamError(
                f"cloning.copy_encoder is on, but the accelerator has no encoder like the "
                f"transformer's (it reads {', '.join(teacher.inputs.keys)}, the transformer "
                f"{', '.join(student.inputs.keys)}); leave it off"
            )

    def step(
        self, before: int, now: int, steps_left: float = math.inf
    ) -> tuple[int, dict[str, Tensor]]:
        """What is due between two counts of env steps: thin updates, or the paper's episodes.

        Args:
            before: the earlier count.
            now: the later one.
            steps_left: env steps that extra episodes may take.

        Returns:
            Env steps that were spent on extra episodes, and the last update's metrics.
        """
        config = self.config
        metrics: dict[str, Tensor] = {}
        if config.source == "episodes":
            if now // config.episodes_every == before // config.episodes_every:
                return 0, metrics
            num_steps = self._collect(self.teacher, config.episodes, steps_left)
            for _ in range(max(1, num_steps // config.batch_size)):  # one epoch
                metrics = self.update()
            return num_steps, metrics
        if config.every:
            for _ in range(now // config.every - before // config.every):
                metrics = self.update()
        return 0, metrics

    def prepare_check(self, steps_left: float = math.inf) -> tuple[int, dict[str, Tensor]]:
        """The burst (and own episodes) before the switch rule looks.

        With source=episodes the accelerator's are run before it where none have been yet,
        one at least.

        Args:
            steps_left: env steps that extra episodes may take.

        Returns:
            Env steps that were spent on extra episodes, and the last update's metrics. `burst` is
            then the mean action error over the first and over the last tenth of the updates.
        """
        num_steps = 0
        if self._must_copy:
            encoders = self.teacher.inputs.encoders.state_dict()
            self.student.inputs.encoders.load_state_dict(encoders)
            self._must_copy = False
        if self.config.source == "episodes" and not self._has_windows(self.extra):
            num_steps = self._collect(self.teacher, self.config.episodes, steps_left, least=1)
        if self.config.own_episodes:
            if not self.cloning.num_updates:
                self._burst()  # what an untaught student does leads where nobody needs a label
            left = steps_left - num_steps
            num_steps += self._collect(self.student, self.config.own_episodes, left)
        metrics, errors = self._burst()
        tenth = max(1, len(errors) // 10)
        self.burst = None
        if errors:
            start, end = torch.stack(errors[:tenth]).mean(), torch.stack(errors[-tenth:]).mean()
            self.burst = (float(start), float(end))
            metrics = {**metrics, "burst_start_error": start, "burst_end_error": end}
        return num_steps, metrics

    def _burst(self) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Many updates in a row: the last one's metrics, the action error of each."""
        metrics: dict[str, Tensor] = {}
        errors: list[Tensor] = []
        for _ in range(self.config.burst):
            metrics = self.update()
            if metrics:
                errors.append(metrics["action_error"])
        return metrics, errors

    def update(self) -> dict[str, Tensor]:
        """One cloning update; the metrics are empty while there is nothing to clone from."""
        replay = self._pick()
        if replay is None:
            return {}
        windows = num_windows(self.config.batch_size, self.loss_steps)
        batch = replay.sample(windows, self.context_length, self.loss_steps, keys=self.keys)
        if self._encoders is not None:
            batch = encoded(batch, self._encoders)
        label = self._label(batch)
        return self.cloning.update(shifted(batch, self.config.shift), label)

    def _label(self, batch: Batch) -> Any:
        if self.config.source == "stored":
            return batch.action[:, -batch.loss_steps :]
        with torch.no_grad():
            return self.teacher(batch.obs, batch.obs_valid, batch.loss_steps)

    def _pick(self) -> ReplayBuffer | None:
        """Where the next update's windows come from: of two sources by turns, if both have any."""
        extra, common = self._has_windows(self.extra), None
        if self.config.source != "episodes" and not (extra and self.cloning.num_updates % 2):
            common = self.replay if self.frames is None else self.frames.follow(self.replay)
        if common is not None and self._has_windows(common):
            return common
        return self.extra if extra else None

    def _has_windows(self, replay: ReplayBuffer) -> bool:
        return replay.num_transitions(self.context_length) > 0

    def _collect(self, actor: Actor, num_episodes: int, steps_left: float, least: int = 0) -> int:
        """As many episodes as surely fit into the steps that are left, each as long as it may be.

        Where no time limit is known an episode counts as one step here, so that the last may take
        more than is left.
        """
        env = self.extra_env.open()
        fitting = max(steps_left / (env.spec.max_episode_steps or 1), least)
        num_episodes = int(min(num_episodes, fitting))
        if not num_episodes:
            return 0
        self._num_collections += 1
        seed = self._seed + 1000 * self._num_collections
        return rollout(env, actor, self.extra, num_episodes, seed)[0]

    def state_dict(self) -> dict[str, Any]:
        """What must survive a kill, beside the student itself."""
        return {
            "cloning": self.cloning.state_dict(),
            "extra": self.extra.state_dict(),
            "frames": None if self.frames is None else self.frames.state_dict(),
            "num_collections": self._num_collections,
            "must_copy": self._must_copy,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.cloning.load_state_dict(state["cloning"])
        self.extra.load_state_dict(state["extra"])
        if self.frames is not None:
            self.frames.load_state_dict(state["frames"])
        self._num_collections = state["num_collections"]
        self._must_copy = state["must_copy"]
