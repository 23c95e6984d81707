"""What a run consists of: built anew or from a checkpoint, and saved."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from slipstream import checkpoint
from slipstream.accelerators import bring, bring_again, settled
from slipstream.checkpoint.tree import load_tree
from slipstream.config import RunConfig, team_config
from slipstream.errors import SlipstreamError
from slipstream.judging.referee import Referee
from slipstream.judging.videos import check_videos
from slipstream.policies.policy import describe_policy
from slipstream.spec import PRIVILEGED
from slipstream.stages.interact import Interaction
from slipstream.stages.team import Team
from slipstream.training.clock import Clock
from slipstream.training.environments import Environments, lacks_images
from slipstream.training.machine import set_up_process


class RunState:
    """Everything that a run's loop moves, and that a checkpoint holds.

    Attributes:
        config: the run's, with what its environment and its accelerator decide.
        run_dir: where it writes.
        matmul: what matrices are multiplied with.
        envs: opens its environments.
        env: what the present stage collects in.
        spec: of what policies see in it.
        team: actors, critic and replay.
        stage: who collects and who learns at present.
        interaction: the running episodes.
        referee: evaluates.
        clock: what it took so far.
        step: counted env steps.
        looked_at: the step at which actors were evaluated last; None before.
        num_updates: updates made, over both stages.
        update_debt: the part of an update that is due beside the whole ones that were made.
        best: the team as it was evaluated best; empty before.
        best_step: when that was.
        metrics: the newest of each, until they are logged.
        finished: nothing is left to be done.
        exact: a resumed run goes on with the very episodes that were running.
        log_position: where the log of a resumed run goes on; None for a new one.
        saved_seed: the seed of the run that it goes on from; its own for a new one.
    """

    def __init__(
        self,
        config: RunConfig,
        run_dir: Path,
        resume_from: Path | None,
        say: Callable[[str], None],
    ) -> None:
        """Build everything.

        Args:
            config: the run's configuration.
            run_dir: where it writes.
            resume_from: a checkpoint of this run to go on from, or None.
            say: told what a new run will hold in memory, before it is taken.

        Raises:
            SlipstreamError: what the run needs is missing or does not fit, or a checkpoint that
                does not fit the configuration.
        """
        saved = None if resume_from is None else _training_state(resume_from)
        self.matmul = set_up_process(config, None if saved is None else saved["matmul"])
        self.clock = Clock()
        self.run_dir = run_dir
        self.envs = Environments(config)
        self.env = self.envs.collecting(config.stages[0])
        self.spec = self.env.spec_rendered
        config = config.fitted(self.spec)
        if config.video.enabled:
            check_videos(self.envs.filmed)
        if saved is None:
            brought = bring(config, self.spec)
        else:
            brought = bring_again(saved.get("accelerator"), config, self.spec)
        if lacks_images(self.env, brought):
            self.env.close()
            self.env = self.envs.rendering()
        self.config = config = settled(config, brought)
        self.referee = Referee(config, self.envs.evaluating)
        sizes = team_config(config, run_dir / "replay")
        self.team = Team(sizes, self.spec, self.envs.single, brought, self.env.spec)
        if saved is None:
            say(self.team.say_memory())
            if PRIVILEGED in self.spec.obs and not config.privileged:
                say(
                    f"{self.spec.env_id} shows '{PRIVILEGED}', which nobody reads: it is for the "
                    "networks that --privileged names"
                )
        self.step = self.num_updates = 0
        self.looked_at: int | None = None
        self.update_debt = 0.0
        self.best: dict[str, Any] = {}
        self.best_step = 0
        self.metrics: dict[str, Any] = {}
        self.finished = False
        self.stage = self.team.enter(config.stages[0])
        self.interaction = self._interact()
        self.exact = True
        self.log_position: int | None = None
        self.saved_seed = config.seed
        if saved is not None:
            try:
                self.log_position = self._load(saved)
            except KeyError as error:
                raise SlipstreamError(
                    f"{resume_from} has no {error}, so it is of another version of Slipstream; go "
                    "on with the one that versions.json names"
                ) from error
            except (RuntimeError, ValueError) as error:
                raise SlipstreamError(
                    f"{resume_from} does not fit the configuration ({str(error).splitlines()[0]}): "
                    "what it holds (networks, optimizers, replay) must keep its sizes"
                ) from error
        self.clock.start()

    @property
    def utd_ratio(self) -> float:
        """Updates for each env step in the present stage."""
        online = self.config.online.utd_ratio if self.stage.name == "online" else None
        return self.config.utd_ratio if online is None else online

    @property
    def steps_left(self) -> int:
        """Env steps that may still be spent."""
        return max(self.config.total_steps - self.step, 0)

    @property
    def eval_every(self) -> int:
        """Env steps between evaluations in the present stage."""
        online = self.config.online.eval_every if self.stage.name == "online" else None
        return online or self.config.eval.every

    @property
    def cloned(self) -> bool:
        """Whether the transformer has learnt anything yet; before that it is not evaluated."""
        imitation = self.stage.imitation
        return imitation is None or imitation.cloning.num_updates > 0

    @property
    def in_first_stage(self) -> bool:
        """Whether the present stage is the run's first."""
        return self.stage.name == self.config.stages[0]

    def enter_online(self) -> None:
        """Hand over, to environments that render where those of stage 1 do not."""
        self.stage = self.team.enter("online", self.stage)
        self.team.close()
        if self.env.spec != self.spec:
            self.env.close()
            self.env = self.envs.collecting("online")
        self.interaction = self._interact()

    def restore_best(self) -> None:
        """Go back to the team that was kept."""
        self.stage = self.team.restore(self.best, self.stage)

    def remember_best(self, log_position: int) -> None:
        """Keep the team as it is now, and have the checkpoint `best` hold its policy.

        Args:
            log_position: where the log would go on from here.
        """
        self.best, self.best_step = self.team.snapshot(self.stage), self.step
        if checkpoint.can_resume(self._folder(self.step)):  # `last`, never to be cut short
            self.save(log_position)
        else:
            checkpoint.save_checkpoint(self.run_dir, self.step, self._policy(), {})
        checkpoint.link(self.run_dir, "best", self.step)

    def cut_off(self) -> list[int]:
        """Let the checkpoints of a resumed run end where it goes on; the steps that are dropped.

        Those behind belong to a future that is given up, `best` perhaps among them. A branch begins
        without the folder of its best.
        """
        checkpoint.link(self.run_dir, "last", self.step)
        if self.best:
            if not self._folder(self.best_step).exists():
                policy = self._policy(self.best["networks"][self.team.product])
                checkpoint.save_checkpoint(self.run_dir, self.best_step, policy, {})
            checkpoint.link(self.run_dir, "best", self.best_step)
        return checkpoint.drop_newer(self.run_dir, self.step)

    def save(self, log_position: int) -> None:
        """Write a checkpoint, as the last one.

        Args:
            log_position: where the log would go on from here.
        """
        checkpoint.save_checkpoint(
            self.run_dir, self.step, self._policy(), {**self._state(), "log_position": log_position}
        )
        checkpoint.link(self.run_dir, "last", self.step)
        checkpoint.prune(self.run_dir, self.config.keep_checkpoints)

    def close(self) -> None:
        """Release the environments."""
        self.env.close()
        self.referee.close()
        self.team.close()

    def _folder(self, step: int) -> Path:
        return self.run_dir / "checkpoints" / str(step)

    def _policy(
        self, weights: dict[str, torch.Tensor] | None = None
    ) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        """The product as it is saved, with its present weights or those that are given."""
        product = self.team.product
        actor = self.team.actors[product]
        described = describe_policy(self.config, self.spec, product, actor.inputs.keys)
        return described, dict(actor.state_dict()) if weights is None else weights

    def _interact(self) -> Interaction:
        team = self.team
        embed = None if team.embedder is None else team.embedder.obs
        return Interaction(self.env, team.replay, team.normalizers, embed)

    def _state(self) -> dict[str, Any]:
        on_gpu = torch.device(self.config.device).type == "cuda"
        return {
            "seed": self.config.seed,
            "step": self.step,
            "looked_at": self.looked_at,
            "stage": self.stage.name,
            "finished": self.finished,
            "num_updates": self.num_updates,
            "update_debt": self.update_debt,
            "referee": self.referee.state_dict(),
            "best": self.best,
            "best_step": self.best_step,
            "seconds": self.clock.state_dict(),
            "matmul": self.matmul,
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state(self.config.device) if on_gpu else None,
            "accelerator": None if self.team.brought is None else self.team.brought.recipe,
            "team": self.team.state_dict(),
            "stage_state": self.stage.state_dict(),
            "interaction": self.interaction.state_dict(),
            "metrics": dict(self.metrics),
        }

    def _load(self, state: dict[str, Any]) -> int:
        """Take over a saved state; returns where the log goes on."""
        if state["stage"] != self.stage.name:
            self.enter_online()
        self.team.load_state_dict(state["team"])
        self.stage.load_state_dict(state["stage_state"])
        self.referee.load_state_dict(state["referee"])
        for name in (
            *("step", "looked_at", "finished", "num_updates", "update_debt"),
            *("best", "best_step", "metrics"),
        ):
            setattr(self, name, state[name])
        self.finished = self.finished and self.step >= self.config.total_steps
        self.clock.load_state_dict(state["seconds"])
        self.exact = self.interaction.load_state_dict(state["interaction"], self.stage.collector)
        self.saved_seed = state["seed"]
        torch.set_rng_state(state["rng"])
        if state["cuda_rng"] is not None:
            torch.cuda.set_rng_state(state["cuda_rng"].cpu(), self.config.device)
        return state["log_position"]


def _training_state(resume_from: Path) -> dict[str, Any]:
    if not checkpoint.can_resume(resume_from):
        raise SlipstreamError(f"{resume_from} holds a policy only; resume the run's last")
    return load_tree(resume_from / "training_state")
