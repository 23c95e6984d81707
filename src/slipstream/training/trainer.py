"""The loop: step, store, update, look, save; one for both stages."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch

from slipstream import checkpoint
from slipstream.accelerators import bring, bring_again, describe_brought, settled
from slipstream.config import RunConfig, team_config, to_dict
from slipstream.envs.film import Show
from slipstream.envs.setup import open_env, open_filmed
from slipstream.envs.vec_env import VecEnv
from slipstream.errors import Interrupted, SlipstreamError
from slipstream.judging.referee import EVAL_SEED, Referee
from slipstream.judging.videos import check_videos, record_episodes
from slipstream.logs.logger import RunLogger
from slipstream.logs.progress import Progress
from slipstream.logs.trackers import import_tracker, open_trackers
from slipstream.networks.linear import Backend, fastest_matmul_backend, set_matmul_backend
from slipstream.policies.policy import describe_policy
from slipstream.stages.accelerate import Brought
from slipstream.stages.interact import Interaction
from slipstream.stages.memory import images_of
from slipstream.stages.stage import Stage
from slipstream.stages.team import Team
from slipstream.training.allocator import keep_freed_memory
from slipstream.training.interrupts import first_interrupt_calls

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
        state = None
        if resume_from is not None:
            if not checkpoint.can_resume(resume_from):
                raise SlipstreamError(f"{resume_from} holds a policy only; resume the run's last")
            state = checkpoint.load_tree(resume_from / "training_state")
        _check_device(config.device)
        for name in config.log_to:
            import_tracker(name)  # or say now that it is missing, before anything is written
        keep_freed_memory()
        torch.set_num_threads(config.num_threads)
        torch.manual_seed(config.seed)
        if state is not None:
            backend: Backend = state["matmul"]  # the two round differently: keep the first choice
        elif config.matmul == "auto":
            backend = fastest_matmul_backend()
            torch.manual_seed(config.seed)  # the measurement drew numbers
        else:
            backend = config.matmul
        self.matmul = backend
        set_matmul_backend(backend)

        self.config, self.run_dir = config, run_dir
        self.env = self._collect_env(config.stages[0])
        self.spec = self.env.spec_rendered
        self.config = config = config.fitted(self.spec)
        if config.video.enabled:
            check_videos(self._open_filmed)
        if state is None:
            brought = bring(config, self.spec)
        else:
            brought = bring_again(state.get("accelerator"), config, self.spec)
        if brought is not None and self._shows_images_to(brought):
            self.env.close()
            self.env = self._make_env(config.env.num_envs, config.env.parallel)
        self.config = config = settled(config, brought)
        self.progress = Progress(config.total_steps, show_progress)
        self.referee = Referee(config, partial(self._make_env, evaluation=True))
        self.team = Team(
            team_config(config, run_dir / "replay"),
            self.spec,
            lambda: self._make_env(1),
            brought,
            self.env.spec,
        )
        if state is None:
            self.progress.message(self.team.say_memory())
        self.step = self.num_updates = 0
        self.update_debt = 0.0
        self.best: dict[str, Any] = {}
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.metrics: dict[str, Any] = {}
        self.stopped = self.finished = False
        self.stage = self.team.enter(config.stages[0])
        self.interaction = self._interact()
        self.exact = True
        self.log_position: int | None = None
        if state is not None:
            try:
                self.log_position = self._load(state)
            except (KeyError, RuntimeError, ValueError) as error:
                raise SlipstreamError(
                    f"{resume_from} does not fit {run_dir / 'config.json'} "
                    f"({str(error).splitlines()[0]}); resume with the configuration it was saved by"
                ) from error
        self.logger: RunLogger
        if self.stage.name == "online":
            self.progress.switch_step = self.referee.switch_step
        self.started_at = time.perf_counter() - self.seconds["wall"]
        self.cpu_started_at = time.process_time() - self.seconds["cpu"]

    def run(self) -> Path:
        """Train until the step budget is spent; returns the run folder.

        Raises:
            Interrupted: a signal came; the run was saved first.
        """
        config = self.config
        if self.finished:
            self.progress.message(f"this run has finished: all {self.step} steps are done")
            self.close()
            return self.run_dir
        self.logger = self._open_logger()
        try:
            with self.logger, self.progress, first_interrupt_calls(self.stop):
                if self.log_position is None:
                    self._tell_of_accelerator()
                    self.interaction.begin(self.stage.collector, config.seed)
                else:
                    self._tell_of_resume()
                self._rehearse()
                if not self.referee.random_returns and not self.stopped:
                    self._look()
                while self.step < config.total_steps and not self.stopped:
                    before = self.step

                    # Act: one step in every environment.
                    warming = self.stage is self._first_stage and before < config.learning_starts
                    random = warming and self.team.brought is None
                    with self._timed("act"):
                        result = self.interaction.step(
                            self.stage.collector,
                            partial(self.stage.explore, widely=warming),
                            random,
                        )
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
                return self._finish()
        finally:
            self.close()

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

    def _rehearse(self) -> None:
        """Make the accelerator of data, if that is what it comes from and nobody has yet."""
        rehearsal = self.stage.rehearsal
        if rehearsal is None or rehearsal.finished:
            return
        with self._timed("learn"):
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
        with self._timed("learn"):
            self.update_debt += self._utd_ratio * (self.step - before)
            num_updates = int(self.update_debt)
            self.update_debt -= num_updates
            self._keep("train", self.stage.learn(num_updates))
            self.num_updates += num_updates
        if self.stage.imitation is not None:
            with self._timed("clone"):
                extra, metrics = self.stage.imitation.step(before, self.step)
                self.step += extra
                self._keep("clone", metrics)

    def _look(self) -> None:
        """Evaluate, then do what the referee says."""
        imitation, burst = self.stage.imitation, None
        if imitation is not None and self.referee.wants_clone(self.step):
            with self._timed("clone"):
                extra, metrics = imitation.prepare_check()
                self.step += extra
                self._keep("clone", metrics)
                burst = imitation.burst
        with self._timed("eval"):
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
        with self._timed("switch"):
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
            self.env = self._collect_env("online")
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
                with self._timed("eval"):
                    paths = record_episodes(
                        self.team.actors[actor],
                        self._open_filmed,
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

    def _tell_of_resume(self) -> None:
        exactly = (
            "exactly where it stood"
            if self.exact
            else (
                "with a new episode: this environment's running one could not be restored, so the "
                "result will differ from an uninterrupted run's"
            )
        )
        self._tell("resume", exactly)

    def _tell_of_accelerator(self) -> None:
        if self.team.brought is not None:
            self._tell("accelerator", describe_brought(self.team.brought))

    def _make_env(
        self,
        num_envs: int,
        parallel: bool = False,
        evaluation: bool = False,
        on_demand: bool = False,
    ) -> VecEnv:
        config = self.config
        return open_env(
            config.env_id,
            config.env,
            num_envs,
            parallel,
            privileged=bool(config.privileged),
            evaluation=evaluation,
            on_demand=on_demand,
        )

    def _open_filmed(self, show: Show) -> VecEnv:
        config = self.config
        privileged = bool(config.privileged)
        return open_filmed(config.env_id, config.env, show, config.video.size, privileged)

    def _collect_env(self, stage: str) -> VecEnv:
        """The environments that a stage collects in; nothing is rendered where nobody looks."""
        env = self.config.env
        on_demand = stage == "accelerate" and self.config.teacher_sees_state
        return self._make_env(env.num_envs, env.parallel, on_demand=on_demand)

    def _shows_images_to(self, brought: Brought) -> bool:
        """Whether stage 1 must render, although this accelerator is privileged.

        It looks at images nevertheless, or at data that holds images.
        """
        keys = images_of(self.spec) & {*brought.actor.inputs.keys}
        return self.env.spec != self.spec and bool(keys or brought.data_rows)

    def _interact(self) -> Interaction:
        team = self.team
        embed = None if team.embedder is None else team.embedder.obs
        return Interaction(self.env, team.replay, team.normalizers, embed)

    def _keep(self, prefix: str, metrics: dict[str, Any]) -> None:
        for name, value in metrics.items():
            self.metrics[f"{prefix}/{name}"] = value

    def _log_training(self) -> None:
        parts = ("act", "learn", "clone", "eval", "switch")
        seconds = {f"time/{part}_seconds": self.seconds[part] for part in parts}
        wall = time.perf_counter() - self.started_at
        self._log({**self.metrics, **seconds, "time/steps_per_second": self.step / wall})
        self.metrics.clear()

    def _log(self, metrics: dict[str, Any]) -> None:
        common = {
            "num_updates": self.num_updates,
            "eval_steps": self.referee.num_steps,
            "wall_seconds": time.perf_counter() - self.started_at,
            # Of this process, evaluation left out: a busy machine disturbs it less.
            "cpu_seconds": time.process_time() - self.cpu_started_at - self.seconds["eval_cpu"],
        }
        self.logger.log(self.step, self.stage.name, {**common, **metrics})

    @contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        start, cpu_start = time.perf_counter(), time.process_time()
        yield
        self.seconds[part] += time.perf_counter() - start
        self.seconds[f"{part}_cpu"] += time.process_time() - cpu_start

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
        self.seconds["wall"] = time.perf_counter() - self.started_at
        self.seconds["cpu"] = time.process_time() - self.cpu_started_at
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
            "seconds": dict(self.seconds),
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
        self.seconds.update(state["seconds"])
        self.exact = self.interaction.load_state_dict(state["interaction"], self.stage.collector)
        torch.set_rng_state(state["rng"])
        if state["cuda_rng"] is not None:
            torch.cuda.set_rng_state(state["cuda_rng"].cpu(), self.config.device)
        return state["log_position"]


def _check_device(name: str) -> None:
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].partition(": ")[0]
        raise SlipstreamError(
            f"device '{name}' cannot be used ({reason}); choose cpu, or a CUDA device where torch "
            "was built for it"
        ) from error
