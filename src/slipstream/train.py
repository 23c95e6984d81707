"""The loop: step, store, update, look, save; one for both stages."""

import dataclasses
import signal
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from slipstream import checkpoint
from slipstream.allocator import keep_freed_memory
from slipstream.config import RunConfig, load, to_dict
from slipstream.envs.vec_env import VecEnv, make_env
from slipstream.errors import SlipstreamError
from slipstream.evaluate import Evaluation, evaluate
from slipstream.logger import RunLogger
from slipstream.networks.linear import Backend, fastest_matmul_backend, set_matmul_backend
from slipstream.policy import describe_policy
from slipstream.progress import Progress
from slipstream.replay.buffer import ReplayBuffer
from slipstream.rundir import describe_run, new_run_dir
from slipstream.stages.interact import Interaction
from slipstream.stages.online import must_roll_back
from slipstream.stages.stage import Stage
from slipstream.stages.switch import Check, decide
from slipstream.stages.team import Team, TeamConfig

EVAL_SEED = 1_000_000


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
            state = checkpoint.load_tree(resume_from / "training_state")
        if state is not None and "step" not in state:
            raise SlipstreamError(f"{resume_from} holds a policy only; resume the run's last")
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
        self.env = self._make_env(config.env.num_envs, config.env.parallel)
        self.eval_env: VecEnv | None = None
        self.team = Team(_team_config(config), self.env.spec, lambda: self._make_env(1))
        self.step = self.eval_steps = self.num_updates = 0
        self.update_debt = 0.0
        self.history: list[Check] = []
        self.random_returns: tuple[float, ...] = ()
        self.online_returns: list[float] = []
        self.best_return: float | None = None
        self.best: dict[str, Any] = {}
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.metrics: dict[str, Any] = {}
        self.stopped = False
        self.stage = self._enter(config.stages[0])
        self.interaction = Interaction(self.env, self.team.replay, self.team.normalizer)
        self.log_position = None if state is None else self._load(state)
        self.logger: RunLogger
        self.progress = Progress(
            config.total_steps,
            show_progress,
            self.history[-1].step if self.history and self.stage.name == "online" else None,
        )
        self.started_at = time.perf_counter() - self.seconds["wall"]
        self.cpu_started_at = time.process_time() - self.seconds["cpu"]

    def run(self) -> Path:
        """Train until the step budget is spent, or until an interrupt; returns the run folder."""
        config = self.config
        self.logger = RunLogger(self.run_dir, config.tensorboard, self.log_position)
        try:
            with self.logger, self.progress, self._stop_on_signals():
                if self.step == 0:
                    self.interaction.begin(self.stage.collector, config.seed)
                    self._look()
                while self.step < config.total_steps and not self.stopped:
                    before = self.step

                    # Act: one step in every environment.
                    random = self.stage is self._first_stage and before < config.learning_starts
                    with self._timed("act"):
                        result = self.interaction.step(
                            self.stage.collector, self.stage.learner.explore, random
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
                    if not random and self.stage.ready:
                        self._learn(before)

                    # Look: evaluate, hand over, go back if it fell apart.
                    if self._crossed(config.eval.every, before) or self._switch_is_due(before):
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

    @property
    def _first_stage(self) -> Stage | None:
        return self.stage if self.stage.name == self.config.stages[0] else None

    def _crossed(self, period: int, before: int) -> bool:
        return self.step // period != before // period

    def _switch_is_due(self, before: int) -> bool:
        latest = self.config.switch.latest * self.config.total_steps
        return len(self.config.stages) == 2 and before < latest <= self.step

    def _learn(self, before: int) -> None:
        with self._timed("learn"):
            self.update_debt += self.config.utd_ratio * (self.step - before)
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
        """Evaluate every actor that matters now, then let the switch rule and the guard decide."""
        stage, actors = self.stage, self.team.actors
        if not self.random_returns:
            self.random_returns = self._evaluate("random").returns
        evaluations: dict[str, Evaluation] = {}
        if stage.name == "accelerate":
            if stage.imitation is not None and self._rule_looks():
                with self._timed("clone"):
                    extra, metrics = stage.imitation.prepare_check()
                    self.step += extra
                    self._keep("clone", metrics)
            evaluations["accelerator"] = self._evaluate("accelerator")
        if "transformer" in actors:
            evaluations["transformer"] = self._evaluate("transformer")
        product = evaluations[self.team.product]
        if self.best_return is None or product.mean > self.best_return:
            self._remember_best(product.mean)
        self.progress.update(
            step=self.step,
            stage=stage.name,
            **{name: evaluation.mean for name, evaluation in evaluations.items()},
        )
        if stage.name == "online":
            self._guard(product.mean)
        elif stage.imitation is not None and self.step:
            self.history.append(
                Check(
                    self.step,
                    self.random_returns,
                    evaluations["accelerator"].returns,
                    evaluations["transformer"].returns,
                    evaluations["transformer"].action_error or 0.0,
                )
            )
            if "online" in self.config.stages:
                decision = decide(self.config.switch, self.history, self.config.total_steps)
                if decision.switch:
                    self._switch(decision.reason)

    def _rule_looks(self) -> bool:
        share = self.step / self.config.total_steps
        switch = self.config.switch
        first = switch.latest if switch.rule == "at_step" else switch.earliest
        return share >= first or self.step >= self.config.total_steps

    def _switch(self, reason: str) -> None:
        self.logger.event(self.step, self.stage.name, "switch", reason=reason)
        self.progress.message(f"switch at step {self.step}: {reason}")
        imitation = self.stage.imitation
        self.stage = self._enter("online", self.stage)
        if imitation is not None:
            imitation.close()
        self.interaction = Interaction(self.env, self.team.replay, self.team.normalizer)
        self.interaction.begin(self.stage.collector)
        # The clone as it was handed over is the first snapshot to go back to.
        self._remember_best(sum(self.history[-1].transformer) / len(self.history[-1].transformer))
        self._save()

    def _guard(self, mean: float) -> None:
        self.online_returns.append(mean)
        random = sum(self.random_returns) / len(self.random_returns)
        if self.best_return is None or not must_roll_back(
            self.config.online, self.online_returns, self.best_return, random
        ):
            return
        reason = (
            f"the last {self.config.online.guard_checks} evaluations ({mean:.1f} now) are below "
            f"{self.config.online.guard_fraction:.0%} of the best ({self.best_return:.1f})"
        )
        self.logger.event(self.step, "online", "rollback", reason=reason)
        self.progress.message(f"back to the best snapshot at step {self.step}: {reason}")
        self.team.restore(self.best)
        self.stage = self.team.reenter(self.stage)
        self.online_returns.clear()

    def _remember_best(self, mean: float) -> None:
        self.best_return = mean
        self.best = self.team.snapshot()
        if self.step:
            if not (self.run_dir / "checkpoints" / str(self.step)).exists():
                checkpoint.save_checkpoint(self.run_dir, self.step, self._policy(), {})
            checkpoint.link(self.run_dir, "best", self.step)

    def _evaluate(self, name: str) -> Evaluation:
        if self.eval_env is None:
            self.eval_env = self._make_env(self.config.eval.episodes)
        seeds = range(EVAL_SEED, EVAL_SEED + self.config.eval.episodes)
        actors = self.team.actors
        compare = None
        if name == "transformer" and self.stage.name == "accelerate":
            compare = actors["accelerator"]
        with self._timed("eval"):
            evaluation = evaluate(actors.get(name), self.eval_env, seeds, compare)
        self.eval_steps += evaluation.num_steps
        metrics = evaluation.metrics(name)
        if evaluation.action_error is not None:
            metrics["clone/own_state_error"] = evaluation.action_error
        self._log(metrics)
        return evaluation

    def _enter(self, name: str, before: Stage | None = None) -> Stage:
        return self.team.enter(name, before)

    def _make_env(self, num_envs: int, parallel: bool = False) -> VecEnv:
        limit = self.config.env.max_episode_steps
        kwargs = {} if limit is None else {"max_episode_steps": limit}
        return make_env(self.config.env_id, num_envs=num_envs, parallel=parallel, env_kwargs=kwargs)

    def _keep(self, prefix: str, metrics: dict[str, Any]) -> None:
        for name, value in metrics.items():
            self.metrics[f"{prefix}/{name}"] = value

    def _log_training(self) -> None:
        parts = ("act", "learn", "clone", "eval")
        seconds = {f"time/{part}_seconds": self.seconds[part] for part in parts}
        wall = time.perf_counter() - self.started_at
        self._log({**self.metrics, **seconds, "time/steps_per_second": self.step / wall})
        self.metrics.clear()

    def _log(self, metrics: dict[str, Any]) -> None:
        common = {
            "num_updates": self.num_updates,
            "eval_steps": self.eval_steps,
            "wall_seconds": time.perf_counter() - self.started_at,
            # Of this process, evaluation left out: comparable on a busy machine.
            "cpu_seconds": time.process_time() - self.cpu_started_at - self.seconds["eval_cpu"],
        }
        self.logger.log(self.step, self.stage.name, {**common, **metrics})

    @contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        start, cpu_start = time.perf_counter(), time.process_time()
        yield
        self.seconds[part] += time.perf_counter() - start
        self.seconds[f"{part}_cpu"] += time.process_time() - cpu_start

    @contextmanager
    def _stop_on_signals(self) -> Iterator[None]:
        """The first interrupt lets the present step finish and saves; the second is immediate."""

        def stop(number: int, frame: Any) -> None:
            if self.stopped:
                raise KeyboardInterrupt
            self.stopped = True

        try:
            numbers = (signal.SIGINT, signal.SIGTERM)
            before = {number: signal.signal(number, stop) for number in numbers}
        except ValueError:  # not the main thread: whoever runs us handles signals
            yield
            return
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _finish(self) -> Path:
        if self.stopped:
            self._save()
            self.progress.message(
                f"stopped at step {self.step}; go on with: slipstream resume {self.run_dir}"
            )
            return self.run_dir
        if self.step % self.config.eval.every:
            self._look()
        self._log_training()
        self._save()
        self.logger.event(self.step, self.stage.name, "end")
        return self.run_dir

    def close(self) -> None:
        """Release the environments."""
        self.env.close()
        if self.eval_env is not None:
            self.eval_env.close()
        if self.stage.imitation is not None:
            self.stage.imitation.close()

    def _policy(self) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        product = self.team.product
        described = describe_policy(self.config, self.env.spec, product)
        return described, dict(self.team.actors[product].state_dict())

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
            "eval_steps": self.eval_steps,
            "num_updates": self.num_updates,
            "update_debt": self.update_debt,
            "history": [dataclasses.asdict(check) for check in self.history],
            "random_returns": self.random_returns,
            "online_returns": self.online_returns,
            "best_return": self.best_return,
            "best": self.best,
            "seconds": dict(self.seconds),
            "matmul": self.matmul,
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state(self.config.device) if on_gpu else None,
            "team": self.team.state_dict(),
            "stage_state": self.stage.state_dict(),
            "interaction": self.interaction.state_dict(),
            "metrics": dict(self.metrics),
            "log_position": self.logger.position,
        }

    def _load(self, state: dict[str, Any]) -> int:
        """Take over a saved state; returns where the log goes on."""
        if state["stage"] != self.stage.name:
            self.stage = self._enter(state["stage"], self.stage)
        self.team.load_state_dict(state["team"])
        self.stage.load_state_dict(state["stage_state"])
        self.interaction = Interaction(self.env, self.team.replay, self.team.normalizer)
        for name in (
            "step",
            "eval_steps",
            "num_updates",
            "update_debt",
            "random_returns",
            "online_returns",
            "best_return",
            "best",
            "metrics",
        ):
            setattr(self, name, state[name])
        self.seconds.update(state["seconds"])
        self.history = [Check(**check) for check in state["history"]]
        self.exact = self.interaction.load_state_dict(state["interaction"], self.stage.collector)
        torch.set_rng_state(state["rng"])
        if state["cuda_rng"] is not None:
            torch.cuda.set_rng_state(state["cuda_rng"].cpu(), self.config.device)
        return state["log_position"]


def train(config: RunConfig, run_dir: Path | None = None, show_progress: bool = True) -> Path:
    """Run both stages.

    Args:
        config: what to train.
        run_dir: where to write; None makes `runs/<env>/<preset>/seed<k>-<time>`.
        show_progress: draw the progress display.

    Returns:
        The run folder.

    Raises:
        SlipstreamError: a configuration that cannot run, or a folder that holds a run already.
    """
    if run_dir is None:
        run_dir = new_run_dir(Path("runs"), config.env_id, config.preset, config.seed)
    trainer = Trainer(config, run_dir, show_progress=show_progress)
    describe_run(run_dir, to_dict(config))
    return trainer.run()


def describe(config: RunConfig) -> list[str]:
    """Build everything that a run would, and say how large it is; nothing is written."""
    trainer = Trainer(config, Path())
    team = trainer.team
    lines = [
        f"environment {team.spec.env_id}: observations "
        f"{ {key: value.shape for key, value in team.spec.obs.items()} }, "
        f"{team.spec.action_dim} action components"
    ]
    for name, module in team.modules().items():
        count = sum(parameter.numel() for parameter in module.parameters())
        lines.append(f"{name}: {count:,} parameters")
    for stage in config.stages:
        capacity = getattr(config, stage).replay_capacity
        num_bytes = ReplayBuffer.bytes_required(team.spec, capacity, config.env.num_envs)
        lines.append(f"replay of stage {stage}: {capacity:,} rows, {num_bytes / 2**20:.1f} MiB")
    lines.append(f"matrix products: {trainer.matmul}")
    trainer.close()
    return lines


def resume(run_dir: Path, show_progress: bool = True) -> Path:
    """Go on with a run from its last checkpoint.

    On the CPU the result equals, bit for bit, that of a run never interrupted.

    Raises:
        SlipstreamError: no run there, or no whole checkpoint.
    """
    if not (run_dir / "config.json").exists():
        raise SlipstreamError(f"{run_dir} holds no run (no config.json); give a run's folder")
    config = load(run_dir / "config.json")
    return Trainer(config, run_dir, checkpoint.resolve(run_dir), show_progress).run()


def _team_config(config: RunConfig) -> TeamConfig:
    kinds: dict[str, str] = {}
    if "accelerate" in config.stages:
        kinds["accelerator"] = config.accelerator
    if "online" in config.stages or config.cloning.enabled:
        kinds["transformer"] = config.transformer
    return TeamConfig(
        seed=config.seed,
        num_envs=config.env.num_envs,
        normalize_obs=config.env.normalize_obs,
        algorithm=config.algorithm,
        kinds=kinds,
        batch_size=config.batch_size,
        networks=config.networks,
        algorithms=config.algorithms,
        cloning=config.cloning,
        accelerate=config.accelerate,
        online=config.online,
        device=config.device,
    )
