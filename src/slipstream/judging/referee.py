"""Looking at the actors from time to time: is it time to switch, to remember, to go back?"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from slipstream.config import RunConfig
from slipstream.envs.vec_env import VecEnv
from slipstream.judging.evaluation import Evaluation, evaluate
from slipstream.stages.online import must_roll_back
from slipstream.stages.switch import Check, decide, imitation_gap
from slipstream.stages.team import Team

EVAL_SEED = 1_000_000


@dataclass(frozen=True)
class Verdict:
    """What one look says.

    Attributes:
        returns: mean return of each actor that was evaluated.
        best: the run's product is better than ever.
        switch: why to hand over now, or None.
        rollback: why to go back to the best snapshot, or None.
    """

    returns: Mapping[str, float]
    best: bool
    switch: str | None
    rollback: str | None


class Referee:
    """Evaluates on the same seeds every time, keeps the history, applies switch rule and guard.

    All are judged by their scores: success where the environment reports it, else the return.

    Args:
        config: the run's configuration.
        make_env: makes the evaluation environments, as many as it is told.
    """

    def __init__(self, config: RunConfig, make_env: Callable[[int], VecEnv]) -> None:
        self.config = config
        self.num_steps = 0
        self.history: list[Check] = []
        self.random_scores: tuple[float, ...] = ()
        self.online_scores: list[float] = []
        self.best_rank: tuple[float, float] | None = None
        self._make_env = make_env
        self._env: VecEnv | None = None

    @property
    def switch_step(self) -> int | None:
        """The step of the newest check of stage 1, which is the switch's once it is over."""
        return self.history[-1].step if self.history else None

    def wants_clone(self, step: int) -> bool:
        """Whether the next look may switch or ends the run, so that the clone should be ready."""
        switch, total = self.config.switch, self.config.total_steps
        first = switch.latest if switch.rule == "at_step" else switch.first_look
        return step >= min(first, 1.0) * total

    def look(
        self,
        step: int,
        stage: str,
        team: Team,
        log: Callable[[dict[str, Any]], None],
        burst: tuple[float, float] | None = None,
        cloned: bool = True,
    ) -> Verdict:
        """Evaluate every actor that matters in this stage, and decide.

        Args:
            step: counted env steps.
            stage: the present stage.
            team: the actors.
            log: takes the metrics of each evaluation.
            burst: cloning error at the start and the end of the updates just before this look.
            cloned: whether the transformer has learnt anything yet.
        """
        if not self.random_scores:
            self.random_scores = self._evaluate("random", team, log).scores
        found = {
            name: self._evaluate(name, team, log, compare=stage == "accelerate")
            for name in self.evaluated(stage, team, cloned)
        }
        product, best = found.get(team.product), False
        if product is not None:
            best = self.best_rank is None or product.rank > self.best_rank
            self.best_rank = product.rank if best else self.best_rank
        switch = rollback = None
        if stage == "online":
            rollback = self._guard(found["transformer"])
        elif "transformer" in found and step:
            clone = found["transformer"]
            switch = self._check(step, found["accelerator"], clone, burst, log)
            if switch is not None:  # from now on the clone as it is handed over is the one to beat
                self.best_rank = clone.rank
        return Verdict({name: value.mean for name, value in found.items()}, best, switch, rollback)

    @staticmethod
    def evaluated(stage: str, team: Team, cloned: bool) -> list[str]:
        """The actors that matter in a stage; the clone only once it has learnt anything."""
        names = [name for name in team.actors if stage == "accelerate" or name == "transformer"]
        return names if cloned else [name for name in names if name != "transformer"]

    def _check(
        self,
        step: int,
        accelerator: Evaluation,
        clone: Evaluation,
        burst: tuple[float, float] | None,
        log: Callable[[dict[str, Any]], None],
    ) -> str | None:
        error = 0.0 if clone.action_error is None else clone.action_error
        check = Check(step, self.random_scores, accelerator.scores, clone.scores, error, burst)
        self.history.append(check)
        gap = imitation_gap(check)
        if gap is not None:
            log({"switch/imitation_gap": gap})
        if "online" not in self.config.stages:
            return None
        decision = decide(self.config.switch, self.history, self.config.total_steps)
        return decision.reason if decision.switch else None

    def _guard(self, transformer: Evaluation) -> str | None:
        score, _ = transformer.rank
        self.online_scores.append(score)
        online, best = self.config.online, None if self.best_rank is None else self.best_rank[0]
        random = float(np.mean(self.random_scores))
        if best is None or not must_roll_back(online, self.online_scores, best, random):
            return None
        self.online_scores.clear()
        what = "returns" if transformer.successes is None else "shares of success"
        return (
            f"the last {online.guard_checks} {what} ({score:.4g} now) are below "
            f"{online.guard_fraction:.0%} of the best ({best:.4g})"
        )

    def _evaluate(
        self,
        name: str,
        team: Team,
        log: Callable[[dict[str, Any]], None],
        compare: bool = False,
    ) -> Evaluation:
        num_episodes = self.config.eval.episodes
        if self._env is None:
            self._env = self._make_env(num_episodes)
        seeds = range(EVAL_SEED, EVAL_SEED + num_episodes)
        teacher = team.actors.get("accelerator") if compare and name == "transformer" else None
        evaluation = evaluate(team.actors.get(name), self._env, seeds, teacher)
        self.num_steps += evaluation.num_steps
        metrics = evaluation.metrics(name)
        if evaluation.action_error is not None:
            metrics["clone/own_state_error"] = evaluation.action_error
        log(metrics)
        return evaluation

    def close(self) -> None:
        """Release the evaluation environments."""
        if self._env is not None:
            self._env.close()

    def state_dict(self) -> dict[str, Any]:
        """What must survive a kill."""
        return {
            "num_steps": self.num_steps,
            "history": [dataclasses.asdict(check) for check in self.history],
            "random_scores": self.random_scores,
            "online_scores": self.online_scores,
            "best_rank": self.best_rank,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.num_steps = state["num_steps"]
        self.history = [Check(**check) for check in state["history"]]
        self.random_scores = tuple(state["random_scores"])
        self.online_scores = list(state["online_scores"])
        best = state["best_rank"]
        self.best_rank = None if best is None else (best[0], best[1])
