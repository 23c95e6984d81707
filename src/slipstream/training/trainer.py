"""The loop: step, store, update, look, save; one for both stages."""

from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import Any

import torch

from slipstream.accelerators import describe_brought
from slipstream.config import RunConfig, to_dict
from slipstream.errors import Interrupted, SlipstreamError
from slipstream.judging.referee import EVAL_SEED
from slipstream.judging.videos import record_episodes
from slipstream.logs.logger import RunLogger
from slipstream.logs.progress import Progress
from slipstream.logs.trackers import import_tracker, open_trackers
from slipstream.rundir import run_of
from slipstream.training.interrupts import first_interrupt_calls
from slipstream.training.machine import spare_collector
from slipstream.training.state import RunState

SECOND_STAGE_SEED = 250_000
"""Between the seeds of stage 2's first episodes and those of stage 1."""


class Trainer:
    """A run and its loop.

    Args:
        config: the run's configuration.
        run_dir: where it writes.
        resume_from: a checkpoint of this run, or of one that this branches off, to go on from; or
            None.
        show_progress: draw the progress display.
    """

    def __init__(
        self,
        config: RunConfig,
        run_dir: Path,
        resume_from: Path | None = None,
        show_progress: bool = True,
    ) -> None:
        for name in config.log_to:
            import_tracker(name)  # or say now that it is missing, before anything is written
        self.progress = Progress(config.total_steps, show_progress)
        resumes = resume_from is None or run_of(resume_from).resolve() == run_dir.resolve()
        self.branched_off = None if resumes else resume_from
        self.state = RunState(config, run_dir, resume_from, self.progress.message)
        if self.state.stage.name == "online":
            self.progress.switch_step = self.state.referee.switch_step
        self.stopped = False
        self.logger: RunLogger

    def run(self) -> Path:
        """Train until the step budget is spent; returns the run folder.

        Raises:
            Interrupted: a signal came; the run was saved first.
        """
        state = self.state
        if state.finished:
            self.progress.message(f"this run has finished: all {state.step} steps are done")
            state.close()
            return state.run_dir
        self.logger = self._open_logger()
        try:
            stopping = first_interrupt_calls(self.stop)
            with self.logger, self.progress, stopping, spare_collector():
                self._begin()
                self._loop()
                return self._finish()
        finally:
            state.close()

    def _loop(self) -> None:
        state = self.state
        config = state.config
        while state.step < config.total_steps and not self.stopped:
            before = state.step

            # Act: one step in every environment.
            warming = state.in_first_stage and before < config.learning_starts
            explore = partial(state.stage.explore, widely=warming)
            random = warming and state.team.brought is None
            with state.clock.timed("act"):
                result = state.interaction.step(state.stage.collector, explore, random)
            state.step += int(result.acted.sum())
            for episode in result.episodes:
                self._log(
                    {
                        "rollout/episode_return": episode.episode_return,
                        "rollout/episode_length": episode.length,
                    }
                )

            # Learn: policy and critics, and the clone beside them.
            if not warming and state.stage.ready:
                self._learn(before)

            # Look: evaluate, hand over, go back if it fell apart.
            handed_over = False
            if self._crossed(state.eval_every, before) or self._switch_is_due(before):
                handed_over = self._look()

            # Keep; last of all, so that a resumed run begins with the next step.
            if self._crossed(config.log_every, before):
                self._log_training()
            if handed_over or self._crossed(config.checkpoint_every, before):
                state.save(self.logger.position)
            self.progress.update(step=state.step, stage=state.stage.name)

    def _open_logger(self) -> RunLogger:
        state = self.state
        config, position = state.config, state.log_position
        trackers = open_trackers(
            config.log_to, state.run_dir, to_dict(config), resumed=position is not None
        )
        return RunLogger(state.run_dir, config.tensorboard, position, trackers)

    def stop(self) -> None:
        """Ask the loop to save and return after the present step."""
        self.stopped = True

    def _crossed(self, period: int, before: int) -> bool:
        return self.state.step // period != before // period

    def _switch_is_due(self, before: int) -> bool:
        state = self.state
        latest = state.config.switch.latest * state.config.total_steps
        return len(state.config.stages) == 2 and before < latest <= state.step

    def _begin(self) -> None:
        """Before the first step: say where this starts, learn from data, look once."""
        state = self.state
        if state.log_position is None:
            if state.team.brought is not None:
                self._tell("accelerator", describe_brought(state.team.brought))
            state.interaction.begin(state.stage.collector, state.config.seed)
        else:
            dropped = ", ".join(map(str, state.cut_off()))
            behind = f"; the checkpoints behind it are dropped: {dropped}" if dropped else ""
            if self.branched_off is None:
                self._tell("resume", (_EXACT if state.exact else _INEXACT) + behind)
            else:
                how = self._reseed() or (_EXACT if state.exact else _INEXACT)
                self._tell("branch", f"off {self.branched_off}, {how}")
        self._rehearse()
        if state.referee.random is None and not self.stopped:
            self._look()

    def _reseed(self) -> str:
        """Other episodes and random numbers from here on, where a branch has another seed.

        Returns:
            That in words; nothing where it has not.
        """
        state = self.state
        if state.saved_seed == state.config.seed:
            return ""
        torch.manual_seed(state.config.seed)
        offset = 0 if state.in_first_stage else SECOND_STAGE_SEED
        state.interaction.begin(state.stage.collector, state.config.seed + offset)
        return f"with seed {state.config.seed} in place of {state.saved_seed}"

    def _rehearse(self) -> None:
        """Make the accelerator of data, if that is what it comes from and nobody has yet."""
        state = self.state
        rehearsal = state.stage.rehearsal
        if rehearsal is None or rehearsal.finished:
            return
        with state.clock.timed("learn"):
            before = rehearsal.num_critic_updates
            found = rehearsal.run(lambda: self.stopped)
            state.num_updates += rehearsal.num_critic_updates - before
        if rehearsal.finished:
            self._log({f"data/{name}": value for name, value in found.items()})
            self._tell(
                "data",
                f"{found['rows']:,} rows in {found['episodes']} episodes (return "
                f"{found['episode_return']:.1f}), not among the counted steps; cloned from the "
                f"best {found['episodes_cloned']} (return {found['episode_return_cloned']:.1f})",
            )

    def _learn(self, before: int) -> None:
        state = self.state
        with state.clock.timed("learn"):
            state.update_debt += state.utd_ratio * (state.step - before)
            num_updates = int(state.update_debt)
            state.update_debt -= num_updates
            self._keep("train", state.stage.learn(num_updates))
            state.num_updates += num_updates
        if state.stage.imitation is not None:
            with state.clock.timed("clone"):
                extra, metrics = state.stage.imitation.step(before, state.step, state.steps_left)
                state.step += extra
                self._keep("clone", metrics)

    def _look(self) -> bool:
        """Evaluate, then do what the referee says; whether that was to hand over."""
        state = self.state
        imitation, burst = state.stage.imitation, None
        if imitation is not None and state.referee.wants_clone(state.step):
            with state.clock.timed("clone"):
                extra, metrics = imitation.prepare_check(state.steps_left)
                state.step += extra
                self._keep("clone", metrics)
                burst = imitation.burst
        with state.clock.timed("eval"):
            verdict = state.referee.look(
                step=state.step,
                stage=state.stage.name,
                team=state.team,
                log=self._log,
                burst=burst,
                cloned=state.cloned,
            )
        state.looked_at = state.step
        self.progress.update(step=state.step, stage=state.stage.name, **verdict.returns)
        if verdict.best:
            state.remember_best(self.logger.position)
        self._record(
            verdict.returns,
            eval=True,
            best=verdict.best,
            switch=verdict.switch is not None,
            end=not state.steps_left,
        )
        if verdict.switch is not None:
            self._switch(verdict.switch)
        if verdict.rollback is not None:
            self._roll_back(verdict.rollback)
            if not state.steps_left:
                return self._look()  # what the run ends with is what is measured last
        return verdict.switch is not None

    def _switch(self, reason: str) -> None:
        state = self.state
        self._tell("switch", reason)
        with state.clock.timed("switch"):
            state.enter_online()
        state.interaction.begin(state.stage.collector, state.config.seed + SECOND_STAGE_SEED)
        state.remember_best(self.logger.position)

    def _roll_back(self, reason: str) -> None:
        self._tell("rollback", reason)
        self.state.restore_best()

    def _record(self, evaluated: Collection[str], **moments: bool) -> None:
        """Videos of what was just evaluated, if this moment is one of those that are wanted."""
        state = self.state
        video = state.config.video
        when = [moment for moment in video.when if moments[moment]]
        if not (video.enabled and when and state.step):
            return
        seeds = range(EVAL_SEED, EVAL_SEED + video.episodes)
        try:
            for actor in [name for name in evaluated if name in video.actors]:
                details = {"actor": actor, "step": state.step, "when": when}
                with state.clock.timed("eval"):
                    paths = record_episodes(
                        state.team.actors[actor],
                        state.envs.filmed,
                        state.run_dir / "videos",
                        f"step{state.step}_{actor}",
                        seeds,
                        details,
                    )
                self.progress.message(f"{actor} at step {state.step}: {paths[0]}")
        except SlipstreamError as error:  # no reason to lose a run
            self._tell("no_video", str(error))

    def _tell(self, event: str, reason: str) -> None:
        state = self.state
        self.logger.event(state.step, state.stage.name, event, reason=reason)
        self.progress.message(f"{event} at step {state.step}: {reason}")

    def _keep(self, prefix: str, metrics: dict[str, Any]) -> None:
        for name, value in metrics.items():
            self.state.metrics[f"{prefix}/{name}"] = value

    def _log_training(self) -> None:
        state = self.state
        parts = ("act", "learn", "clone", "eval", "switch")
        seconds = {f"time/{part}_seconds": state.clock.seconds[part] for part in parts}
        rate = state.step / state.clock.wall
        self._log({**state.metrics, **seconds, "time/steps_per_second": rate})
        state.metrics.clear()

    def _log(self, metrics: dict[str, Any]) -> None:
        state = self.state
        common = {
            "num_updates": state.num_updates,
            "eval_steps": state.referee.num_steps,
            "wall_seconds": state.clock.wall,
            # Of this process, evaluation left out: a busy machine disturbs it less.
            "cpu_seconds": state.clock.cpu - state.clock.seconds["eval_cpu"],
        }
        self.logger.log(state.step, state.stage.name, {**common, **metrics})

    def _finish(self) -> Path:
        state = self.state
        if self.stopped:
            state.save(self.logger.position)
            raise Interrupted(
                f"stopped at step {state.step}; go on with: slipstream resume {state.run_dir}"
            )
        if state.looked_at != state.step:
            self._look()
        self._log_training()
        state.finished = True
        position = self.logger.position  # a branch that takes more steps has not ended here
        self.logger.event(state.step, state.stage.name, "end")
        state.save(position)
        return state.run_dir


_EXACT = "exactly where it stood"
_INEXACT = (
    "with a new episode: this environment's running one could not be restored, so the result will "
    "differ from an uninterrupted run's"
)
