"""When stage 1 hands over to stage 2: pure functions of the checks so far."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy import stats

from slipstream.errors import SlipstreamError
from slipstream.settings import Count, PositiveShare, Rate, Settings, Share

EARLIEST, EARLIEST_HIDDEN = 0.7, 0.4


@dataclass(frozen=True)
class SwitchConfig(Settings, section="switch"):
    """The switch from stage 1 to stage 2."""

    rule: Literal["matched", "plateau", "at_step"] = "matched"
    """`matched`: the clone performs as its accelerator does; `plateau`: the accelerator has also
    stopped improving; `at_step`: a fixed step."""
    earliest: Share | None = None
    """Share of total_steps before which no rule looks: a clone matches an accelerator that has
    learnt little just as well, and hands over little. None: 0.7, but 0.4 where the environment
    hides something from the accelerator, for then the transformer soon learns faster than it."""
    latest: PositiveShare = 0.8
    """Share of total_steps at which the switch happens whatever the rule says (and, for
    `at_step`, the step)."""
    match_ratio: Rate = 0.95
    """`matched`: least (clone - random) / (accelerator - random) of the mean scores: success where
    the environment reports it, else the return."""
    consecutive: Count = 2
    """`matched`: checks in a row that must hold."""
    sigmas: Rate = 3.0
    """`matched`: standard errors by which the accelerator must be above random."""
    patience: Count = 3
    """`plateau`: checks without improvement."""
    min_improvement: Rate = 0.02
    """`plateau`: what counts as one, as a share of the accelerator's rise above random."""

    def __post_init__(self) -> None:
        """Raise SlipstreamError for shares out of order."""
        super().__post_init__()
        if self.rule != "at_step" and self.first_look > self.latest:
            raise SlipstreamError(
                f"switch.earliest {self.earliest} is after switch.latest {self.latest}, so the "
                "switch could never come in time; lower the one or raise the other"
            )

    @property
    def first_look(self) -> float:
        """Share of total_steps from which on the rule looks."""
        return min(EARLIEST, self.latest) if self.earliest is None else self.earliest

    def settled(self, hidden: bool) -> "SwitchConfig":
        """The same with `earliest` decided, where the rule has a use for it.

        Args:
            hidden: the accelerator does not see everything.
        """
        if self.earliest is not None or self.rule == "at_step":
            return self
        earliest = min(EARLIEST_HIDDEN, self.latest) if hidden else self.first_look
        return replace(self, earliest=earliest)


@dataclass(frozen=True)
class Check:
    """What one look at both actors saw; episode i of each ran on the same seed.

    Scores are returns, or where the environment reports success 1 for success and 0 for none.

    Attributes:
        step: counted env steps.
        random: scores of a policy that acts uniformly.
        accelerator: scores of the accelerator.
        transformer: scores of its clone.
        own_state_error: mean squared difference of their actions on the clone's own states.
        burst: cloning error at the start and at the end of the updates before this check; None
            where there were none.
    """

    step: int
    random: tuple[float, ...]
    accelerator: tuple[float, ...]
    transformer: tuple[float, ...]
    own_state_error: float
    burst: tuple[float, float] | None = None


@dataclass(frozen=True)
class Decision:
    """Whether to switch now, and why (or why not yet)."""

    switch: bool
    reason: str


def decide(config: SwitchConfig, history: Sequence[Check], total_steps: int) -> Decision:
    """Apply the configured rule to the history of checks, oldest first."""
    step = history[-1].step
    if config.rule != "at_step" and step < config.first_look * total_steps:
        standing = check_matches(config, history[-1]).reason
        return Decision(False, f"before {config.first_look:.0%} of all steps; {standing}")
    decision = RULES[config.rule](config, history)
    if decision.switch or step < config.latest * total_steps:
        return decision
    return Decision(True, f"{config.latest:.0%} of all steps reached; {decision.reason}")


def imitation_gap(check: Check) -> float | None:
    """The share of the accelerator's rise above random that its clone lacks; below 0: it has more.

    None where the accelerator is not above random.
    """
    random, accelerator, clone = (
        float(np.mean(returns)) for returns in (check.random, check.accelerator, check.transformer)
    )
    return (accelerator - clone) / (accelerator - random) if accelerator > random else None


STUCK = 0.8
"""A burst that leaves more than this share of its first error taught the clone nothing new."""


def seems_inimitable(config: SwitchConfig, check: Check) -> bool:
    """Whether the clone falls short although more cloning no longer brings it nearer.

    Then the accelerator acts on something that the transformer cannot see or hold (arXiv
    2505.15418 shows that a privileged teacher may cap its pupil so).
    """
    gap = imitation_gap(check)
    if check.burst is None or gap is None or gap <= 1 - config.match_ratio:
        return False
    start, end = check.burst
    return end > STUCK * start


def check_matches(config: SwitchConfig, check: Check) -> Decision:
    """Whether one check shows an accelerator worth cloning and a clone that equals it.

    The ratio of means must reach `match_ratio`; a ratio within twice the allowed gap passes too
    where the paired differences of the episodes could be zero (95 % t interval).
    """
    random, accelerator, clone = (
        np.asarray(returns, dtype=float)
        for returns in (check.random, check.accelerator, check.transformer)
    )
    rise = accelerator.mean() - random.mean()
    error = np.hypot(_standard_error(accelerator), _standard_error(random))
    shortfall = ""
    if check.burst is not None and seems_inimitable(config, check):
        shortfall = (
            f", and more cloning does not lower its error ({check.burst[1]:.3f}): the accelerator "
            "may act on what the transformer cannot see"
        )
    if rise <= 0 or (config.sigmas and rise <= config.sigmas * error):
        reason = f"accelerator not {config.sigmas:g} sigma above random"
        return Decision(False, reason + (f"; clone short of it{shortfall}" if shortfall else ""))
    ratio = float((clone.mean() - random.mean()) / rise)
    if ratio >= config.match_ratio:
        return Decision(True, f"clone at {ratio:.2f} of the accelerator")
    if ratio >= 2 * config.match_ratio - 1 and _paired_interval(clone - accelerator)[1] >= 0:
        return Decision(True, f"clone at {ratio:.2f} of the accelerator, no worse within noise")
    return Decision(False, f"clone at {ratio:.2f} of the accelerator{shortfall}")


def matched(config: SwitchConfig, history: Sequence[Check]) -> Decision:
    """The last `consecutive` checks all match."""
    latest = check_matches(config, history[-1])
    if not latest.switch:
        return latest
    recent = [check_matches(config, check).switch for check in history[-config.consecutive :]]
    if len(recent) < config.consecutive or not all(recent):
        reason = f"{latest.reason}, but not on {config.consecutive} checks in a row"
        return Decision(False, reason)
    return Decision(True, f"{latest.reason} on {len(recent)} checks in a row")


def plateau(config: SwitchConfig, history: Sequence[Check]) -> Decision:
    """The last check matches, and the last `patience` brought the accelerator nothing new."""
    match = check_matches(config, history[-1])
    if len(history) <= config.patience:
        needed = f"{len(history)} checks, {config.patience + 1} needed"
        return Decision(False, f"{needed}; {match.reason}")
    means = [float(np.mean(check.accelerator)) for check in history]
    before, recent = max(means[: -config.patience]), max(means[-config.patience :])
    rise = before - float(np.mean(history[-1].random))
    if recent > before + config.min_improvement * abs(rise):
        return Decision(False, f"accelerator still improving; {match.reason}")
    if not match.switch:
        return match
    return Decision(True, f"accelerator level for {config.patience} checks; {match.reason}")


def at_step(config: SwitchConfig, history: Sequence[Check]) -> Decision:
    """Never of its own accord: `decide` switches at the latest step."""
    return Decision(False, f"fixed step; {check_matches(config, history[-1]).reason}")


Rule = Callable[[SwitchConfig, Sequence[Check]], Decision]

RULES: dict[str, Rule] = {"matched": matched, "plateau": plateau, "at_step": at_step}
"""Name -> pure function of the checks so far, oldest first."""


def _standard_error(returns: np.ndarray) -> float:
    """Infinite for one episode, which tells nothing of the noise."""
    return float(stats.sem(returns)) if len(returns) > 1 else float("inf")


def _paired_interval(difference: np.ndarray) -> tuple[float, float]:
    """95 % t interval of the mean paired difference."""
    spread = _standard_error(difference)
    if spread in (0, float("inf")):
        return float(difference.mean()), float(difference.mean())
    low, high = stats.t.interval(0.95, len(difference) - 1, difference.mean(), spread)
    return float(low), float(high)
