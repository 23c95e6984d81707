"""Looking at the actors from time to time: is it time to switch, to remember, to go back?"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from slipstream.config import RunConfig
from slipstream.envs.vec_env import VecEnv
from slipstream.judging.evaluation import Evaluation, evaluate
from slipstream.stages.online import must_roll_back
from slipstream.stages.switch import (
    Check,
    check_matches,
    decide,
    imitation_gap,
    seems_inimitable,
)
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


@dataclass(frozen=True)
class Sighting:
    """What one look at both actors found.

    Attributes:
        step: counted env steps.
        accelerator: its evaluation.
        transformer: its clone's.
        burst: cloning error at the start and the end of the updates just before.
    """

    step: int
    accelerator: Evaluation
    transformer: Evaluation
    burst: tuple[float, float] | None


class Referee:
    """Evaluates on the same seeds every time, keeps the history, applies switch rule and guard.

    All are judged by success from the first report of it on, and by the return before and where the
    environment never reports any. What is remembered are whole evaluations, so that whatever is
    compared is compared in one unit.

    Args:
        config: the run's configuration.
        make_env: makes the evaluation environments, as many as it is told.

    Attributes:
        num_steps: env steps spent on evaluation.
        by_success: an evaluated episode has reported success, or that there was none.
        random: the random policy's evaluation; None before the first look.
        best: the product's evaluation that nothing later has beaten; None before it had one.
        history: the looks at both actors in stage 1, oldest first.
        online: the transformer's evaluations since stage 2 began, or since it last went back.
    """

    def __init__(self, config: RunConfig, make_env: Callable[[int], VecEnv]) -> None:
        self.config = config
        self.num_steps = 0
        self.by_success = False
        self.random: Evaluation | None = None
        self.best: Evaluation | None = None
        self.history: list[Sighting] = []
        self.online: list[Evaluation] = []
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
        if self.random is None:
            self.random = self._evaluate("random", team, log)
        found = {
            name: self._evaluate(name, team, log, compare=stage == "accelerate")
            for name in self._evaluated(stage, team, cloned or self._must_switch(step))
        }
        product = found.get(team.product)
        best = product is not None and self._beats_best(product)
        if best:
            self.best = product
        switch = rollback = None
        if stage == "online":
            rollback = self._guard(self.random, found["transformer"])
        elif "transformer" in found and step:
            self.history.append(Sighting(step, found["accelerator"], found["transformer"], burst))
            switch = self._check(self.random, cloned, log)
            if switch is not None:  # from now on the clone as it is handed over is the one to beat
                self.best = found["transformer"]
        return Verdict({name: value.mean for name, value in found.items()}, best, switch, rollback)

    def _must_switch(self, step: int) -> bool:
        """Whether stage 1 is to end whatever there is to hand over."""
        config = self.config
        return len(config.stages) == 2 and step >= config.switch.latest * config.total_steps

    @staticmethod
    def _evaluated(stage: str, team: Team, cloned: bool) -> list[str]:
        """The actors that matter in a stage; the clone only once it has learnt anything."""
        names = [name for name in team.actors if stage == "accelerate" or name == "transformer"]
        return names if cloned else [name for name in names if name != "transformer"]

    def _beats_best(self, product: Evaluation) -> bool:
        by_success = self.by_success
        return self.best is None or product.rank(by_success) > self.best.rank(by_success)

    def _check(
        self, random: Evaluation, cloned: bool, log: Callable[[dict[str, Any]], None]
    ) -> str | None:
        history = [
            Check(
                step=seen.step,
                random=random.scores(self.by_success),
                accelerator=seen.accelerator.scores(self.by_success),
                transformer=seen.transformer.scores(self.by_success),
                own_state_error=seen.transformer.action_error or 0.0,
                burst=seen.burst,
            )
            for seen in self.history
        ]
        check, switch = history[-1], self.config.switch
        gap = imitation_gap(check)
        if "online" in self.config.stages:
            decision = decide(switch, history, self.config.total_steps)
        else:
            decision = replace(check_matches(switch, check), switch=False)
        reason = decision.reason if cloned else f"{decision.reason}; it was never cloned"
        found = {} if gap is None else {"switch/imitation_gap": gap}
        stuck = seems_inimitable(switch, check)
        log({**found, "switch/stuck": float(stuck), "switch/reason": reason})
        return reason if decision.switch else None

    def _guard(self, random: Evaluation, transformer: Evaluation) -> str | None:
        self.online.append(transformer)
        if self.best is None:
            return None
        online = self.config.online
        scores = [float(np.mean(seen.scores(self.by_success))) for seen in self.online]
        best, level = (float(np.mean(seen.scores(self.by_success))) for seen in (self.best, random))
        if not must_roll_back(online, scores, best, level):
            return None
        self.online.clear()
        what = "shares of success" if self.by_success else "returns"
        return (
            f"the last {online.guard_checks} {what} ({scores[-1]:.4g} now) are below "
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
        self.by_success = self.by_success or evaluation.successes is not None
        if self.by_success and evaluation.successes is None:  # it is reported on success alone
            evaluation = replace(evaluation, successes=(False,) * num_episodes)
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
            "by_success": self.by_success,
            "random": None if self.random is None else asdict(self.random),
            "best": None if self.best is None else asdict(self.best),
            "history": [asdict(seen) for seen in self.history],
            "online": [asdict(seen) for seen in self.online],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.num_steps, self.by_success = state["num_steps"], state["by_success"]
        self.random, self.best = (
            None if state[name] is None else Evaluation(**state[name])
            for name in ("random", "best")
        )
        self.history = [
            Sighting(
                seen["step"],
                Evaluation(**seen["accelerator"]),
                Evaluation(**seen["transformer"]),
                seen["burst"],
            )
            for seen in state["history"]
        ]
        self.online = [Evaluation(**seen) for seen in state["online"]]
