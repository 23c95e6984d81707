"""The loop: step, store, update, look, save; one for both stages."""

from functools import partial
from pathlib import Path
from typing import Any

import torch

from slipstream import checkpoint
from slipstream.accelerators import bring, bring_again, describe_brought, settled
from slipstream.config import RunConfig, team_config, to_dict
from slipstream.errors import Interrupted, SlipstreamError
from slipstream.judging.referee import EVAL_SEED, Referee
from slipstream.judging.videos import check_videos, record_episodes
from slipstream.logs.logger import RunLogger
from slipstream.logs.progress import Progress
from slipstream.logs.trackers import import_tracker, open_trackers
from slipstream.policies.policy import describe_policy
from slipstream.stages.interact import Interaction
from slipstream.stages.stage import Stage
from slipstream.stages.team import Team
from slipstream.training.clock import Clock
from slipstream.training.environments import Environments, lacks_images
from slipstream.training.interrupts import first_interrupt_calls
from slipstream.training.machine import set_up_process

SECOND_STAGE_SEED = 250_000
"""Between the seeds of stage 2's first episodes and those of stage 1."""


class Trainer:
    """One run: everything that its loop moves, and that a checkpoint holds.

    Args:
        config: the run's configuration.
        run_dir: where it writes.
        resume_from: a checkpoint of this run to go on from, or None.
        show_progress: draw the progress display.
    """

    def __init__(
        self,
        config: RunConfig,
        run_dir: Path,
        resume_from: Path | None = None,
        show_progress: bool = True,
    ) -> None:
        state = None if resume_from is None else _training_state(resume_from)
        for name in config.log_to:
            import_tracker(name)  # or say now that it is missing, before anything is written
        self.matmul = set_up_process(config, None if state is None else state["matmul"])
        self.clock = Clock()
        self.run_dir = run_dir
        self.envs = Environments(config)
        self.env = self.envs.collecting(config.stages[0])
        self.spec = self.env.spec_rendered
        config = config.fitted(self.spec)
        if config.video.enabled:
            check_videos(self.envs.filmed)
        if state is None:
            brought = bring(config, self.spec)
        else:
            brought = bring_again(state.get("accelerator"), config, self.spec)
        if lacks_images(self.env, brought):
            self.env.close()
            self.env = self.envs.rendering()
        self.config = config = settled(config, brought)
        self.progress = Progress(config.total_steps, show_progress)
        self.referee = Referee(config, self.envs.evaluating)
        sizes = team_config(config, run_dir / "replay")
        self.team = Team(sizes, self.spec, self.envs.single, brought, self.env.spec)
        if state is None:
            self.progress.message(self.team.say_memory())
        self.step = self.num_updates = 0
        self.update_debt = 0.0
        self.best: dict[str, Any] = {}
        self.metrics: dict[str, Any] = {}
        self.stopped = self.finished = False
        self.stage = self.team.enter(config.stages[0])
        self.interaction = self._interact()
        self.exact = True
        self.log_position: int | None = None
        self.logger: RunLogger
        if state is not None:
            try:
                self.log_position = self._load(state)
            except (KeyError, RuntimeError, ValueError) as error:
                raise SlipstreamError(
                    f"{resume_from} does not fit {run_dir / 'config.json'} "
                    f"({str(error).splitlines()[0]}); resume with the configuration it was saved by"
                ) from error
        if self.stage.name == "online":
            self.progress.switch_step = self.referee.switch_step
        self.clock.start()

    def run(self) -> Path:
        """Train until the step budget is spent; returns the run folder.

        Raises:
            Interrupted: a signal came; the run was saved first.
        """
        if self.finished:
            self.progress.message(f"this run has finished: all {self.step} steps are done")
            self.close()
            return self.run_dir
        self.logger = self._open_logger()
        try:
            with self.logger, self.progress, first_interrupt_calls(self.stop):
                self._begin()
                self._loop()
                return self._finish()
        finally:
            self.close()

    def _loop(self) -> None:
        config = self.config
        while self.step < config.total_steps and not self.stopped:
            before = self.step

            # Act: one step in every environment.
            warming = self.stage is self._first_stage and before < config.learning_starts
            explore = partial(self.stage.explore, widely=warming)
            random = warming and self.team.brought is None
            with self.clock.timed("act"):
                result = self.interaction.step(self.stage.collector, explore, random)
            self.step += int(result.acted.sum())
            for episode in result.episodes:
                self._log(
                    {
                        "rollout/episode_return": episode.episode_return,
                        "rollout/episode_length": episode.length,
                    }
                )

            # Learn: policy and critics, and the clone beside them.
            if not warming and self.stage.ready:
                self._learn(before)

            # Look: evaluate, hand over, go back if it fell apart.
            if self._crossed(self._eval_every, before) or self._switch_is_due(before):
                self._look()

            # Keep.
            if self._crossed(config.log_every, before):
                self._log_training()
            if self._crossed(config.checkpoint_every, before):
                self._save()
            self.progress.update(step=self.step, stage=self.stage.name)

    def _open_logger(self) -> RunLogger:
        config, position = self.config, self.log_position
        trackers = open_trackers(
            config.log_to, self.run_dir, to_dict(config), resumed=position is not None
        )
        return RunLogger(self.run_dir, config.tensorboard, position, trackers)

    def stop(self) -> None:
        """Ask the loop to save and return after the present step."""
        self.stopped = True

    @property
    def _utd_ratio(self) -> float:
        online = self.config.online.utd_ratio if self.stage.name == "online" else None
        return self.config.utd_ratio if online is None else online

    @property
    def _eval_every(self) -> int:
        online = self.config.online.eval_every if self.stage.name == "online" else None
        return online or self.config.eval.every

    @property
    def _cloned(self) -> bool:
        """Whether the transformer has learnt anything yet; before that it is not evaluated."""
        imitation = self.stage.imitation
        return imitation is None or imitation.cloning.num_updates > 0

    @property
    def _first_stage(self) -> Stage | None:
        return self.stage if self.stage.name == self.config.stages[0] else None

    def _crossed(self, period: int, before: int) -> bool:
        return self.step // period != before // period

    def _switch_is_due(self, before: int) -> bool:
        latest = self.config.switch.latest * self.config.total_steps
        return len(self.config.stages) == 2 and before < latest <= self.step

    def _begin(self) -> None:
        """Before the first step: say where this starts, learn from data, look once."""
        if self.log_position is None:
            if self.team.brought is not None:
                self._tell("accelerator", describe_brought(self.team.brought))
            self.interaction.begin(self.stage.collector, self.config.seed)
        else:
            self._tell("resume", _EXACT if self.exact else _INEXACT)
        self._rehearse()
        if not self.referee.random_returns and not self.stopped:
            self._look()

    def _rehearse(self) -> None:
        """Make the accelerator of data, if that is what it comes from and nobody has yet."""
        rehearsal = self.stage.rehearsal
        if rehearsal is None or rehearsal.finished:
            return
        with self.clock.timed("learn"):
            before = rehearsal.num_critic_updates
            found = rehearsal.run(lambda: self.stopped)
            self.num_updates += rehearsal.num_critic_updates - before
        if rehearsal.finished:
            self._log({f"data/{name}": value for name, value in found.items()})
            self._tell(
                "data",
                f"{found['rows']:,} rows in {found['episodes']} episodes (return "
                f"{found['episode_return']:.1f}), not among the counted steps; cloned from the "
                f"best {found['episodes_cloned']} (return {found['episode_return_cloned']:.1f})",
            )

    def _learn(self, before: int) -> None:
        with self.clock.timed("learn"):
            self.update_debt += self._utd_ratio * (self.step - before)
            num_updates = int(self.update_debt)
            self.update_debt -= num_updates
            self._keep("train", self.stage.learn(num_updates))
            self.num_updates += num_updates
        if self.stage.imitation is not None:
            with self.clock.timed("clone"):
                extra, metrics = self.stage.imitation.step(before, self.step)
                self.step += extra
                self._keep("clone", metrics)

    def _look(self) -> None:
        """Evaluate, then do what the referee says."""
        imitation, burst = self.stage.imitation, None
        if imitation is not None and self.referee.wants_clone(self.step):
            with self.clock.timed("clone"):
                extra, metrics = imitation.prepare_check()
                self.step += extra
                self._keep("clone", metrics)
                burst = imitation.burst
        with self.clock.timed("eval"):
            verdict = self.referee.look(
                self.step, self.stage.name, self.team, self._log, burst, self._cloned
            )
        self.progress.update(step=self.step, stage=self.stage.name, **verdict.returns)
        if verdict.best:
            self._remember_best()
        self._record(
            eval=True,
            best=verdict.best,
            switch=verdict.switch is not None,
            end=self.step >= self.config.total_steps,
        )
        if verdict.switch is not None:
            self._switch(verdict.switch)
        if verdict.rollback is not None:
            self._roll_back(verdict.rollback)

    def _switch(self, reason: str) -> None:
        self._tell("switch", reason)
        with self.clock.timed("switch"):
            self._enter_online()
        self.interaction.begin(self.stage.collector, self.config.seed + SECOND_STAGE_SEED)
        self.referee.hand_over()
        self._remember_best()
        self._save()

    def _enter_online(self) -> None:
        """Hand over, to environments that render where those of stage 1 do not."""
        self.stage = self.team.enter("online", self.stage)
        self.team.close()
        if self.env.spec != self.spec:
            self.env.close()
            self.env = self.envs.collecting("online")
        self.interaction = self._interact()

    def _roll_back(self, reason: str) -> None:
        self._tell("rollback", reason)
        self.team.restore(self.best)
        self.stage = self.team.reenter(self.stage)

    def _record(self, **moments: bool) -> None:
        """Videos of what was just evaluated, if this moment is one of those that are wanted."""
        video = self.config.video
        when = [moment for moment in video.when if moments[moment]]
        if not (video.enabled and when and self.step):
            return
        seeds = range(EVAL_SEED, EVAL_SEED + video.episodes)
        evaluated = self.referee.evaluated(self.stage.name, self.team, self._cloned)
        try:
            for actor in [name for name in evaluated if name in video.actors]:
                details = {"actor": actor, "step": self.step, "when": when}
                with self.clock.timed("eval"):
                    paths = record_episodes(
                        self.team.actors[actor],
                        self.envs.filmed,
                        self.run_dir / "videos",
                        f"step{self.step}_{actor}",
                        seeds,
                        details,
                    )
                self.progress.message(f"{actor} at step {self.step}: {paths[0]}")
        except SlipstreamError as error:  # no reason to lose a run
            self._tell("no_video", str(error))

    def _remember_best(self) -> None:
        self.best = self.team.snapshot()
        if self.step:
            if not (self.run_dir / "checkpoints" / str(self.step)).exists():
                checkpoint.save_checkpoint(self.run_dir, self.step, self._policy(), {})
            checkpoint.link(self.run_dir, "best", self.step)

    def _tell(self, event: str, reason: str) -> None:
        self.logger.event(self.step, self.stage.name, event, reason=reason)
        self.progress.message(f"{event} at step {self.step}: {reason}")

    def _interact(self) -> Interaction:
        team = self.team
        embed = None if team.embedder is None else team.embedder.obs
        return Interaction(self.env, team.replay, team.normalizers, embed)

    def _keep(self, prefix: str, metrics: dict[str, Any]) -> None:
        for name, value in metrics.items():
            self.metrics[f"{prefix}/{name}"] = value

    def _log_training(self) -> None:
        parts = ("act", "learn", "clone", "eval", "switch")
        seconds = {f"time/{part}_seconds": self.clock.seconds[part] for part in parts}
        rate = self.step / self.clock.wall
        self._log({**self.metrics, **seconds, "time/steps_per_second": rate})
        self.metrics.clear()

    def _log(self, metrics: dict[str, Any]) -> None:
        common = {
            "num_updates": self.num_updates,
            "eval_steps": self.referee.num_steps,
            "wall_seconds": self.clock.wall,
            # Of this process, evaluation left out: a busy machine disturbs it less.
            "cpu_seconds": self.clock.cpu - self.clock.seconds["eval_cpu"],
        }
        self.logger.log(self.step, self.stage.name, {**common, **metrics})

    def _finish(self) -> Path:
        if self.stopped:
            self._save()
            raise Interrupted(
                f"stopped at step {self.step}; go on with: slipstream resume {self.run_dir}"
            )
        if self.step % self._eval_every:
            self._look()
        self._log_training()
        self.logger.event(self.step, self.stage.name, "end")
        self.finished = True
        self._save()
        return self.run_dir

    def close(self) -> None:
        """Release the environments."""
        self.env.close()
        self.referee.close()
        self.team.close()

    def _policy(self) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        product = self.team.product
        actor = self.team.actors[product]
        described = describe_policy(self.config, self.spec, product, actor.inputs.keys)
        return described, dict(actor.state_dict())

    def _save(self) -> None:
        checkpoint.save_checkpoint(self.run_dir, self.step, self._policy(), self._state())
        checkpoint.link(self.run_dir, "last", self.step)
        checkpoint.prune(self.run_dir, self.config.keep_checkpoints)

    def _state(self) -> dict[str, Any]:
        on_gpu = torch.device(self.config.device).type == "cuda"
        return {
            "step": self.step,
            "stage": self.stage.name,
            "finished": self.finished,
            "num_updates": self.num_updates,
            "update_debt": self.update_debt,
            "referee": self.referee.state_dict(),
            "best": self.best,
            "seconds": self.clock.state_dict(),
            "matmul": self.matmul,
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state(self.config.device) if on_gpu else None,
            "accelerator": None if self.team.brought is None else self.team.brought.recipe,
            "team": self.team.state_dict(),
            "stage_state": self.stage.state_dict(),
            "interaction": self.interaction.state_dict(),
            "metrics": dict(self.metrics),
            "log_position": self.logger.position,
        }

    def _load(self, state: dict[str, Any]) -> int:
        """Take over a saved state; returns where the log goes on."""
        if state["stage"] != self.stage.name:
            self._enter_online()
        self.team.load_state_dict(state["team"])
        self.stage.load_state_dict(state["stage_state"])
        self.referee.load_state_dict(state["referee"])
        for name in ("step", "finished", "num_updates", "update_debt", "best", "metrics"):
            setattr(self, name, state[name])
        self.finished = self.finished and self.step >= self.config.total_steps
        self.clock.load_state_dict(state["seconds"])
        self.exact = self.interaction.load_state_dict(state["interaction"], self.stage.collector)
        torch.set_rng_state(state["rng"])
        if state["cuda_rng"] is not None:
            torch.cuda.set_rng_state(state["cuda_rng"].cpu(), self.config.device)
        return state["log_position"]


def _training_state(resume_from: Path) -> dict[str, Any]:
    if not checkpoint.can_resume(resume_from):
        raise SlipstreamError(f"{resume_from} holds a policy only; resume the run's last")
    return checkpoint.load_tree(resume_from / "training_state")


_EXACT = "exactly where it stood"
_INEXACT = (
    "with a new episode: this environment's running one could not be restored, so the result will "
    "differ from an uninterrupted run's"
)
