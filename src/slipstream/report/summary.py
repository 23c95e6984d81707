"""The headline numbers of a run and of a group of seeds, and what they say in plain words."""

from collections.abc import Sequence
from dataclasses import dataclass

from slipstream.report.runs import Group, Run
from slipstream.report.statistics import Estimate

ACTORS = ("accelerator", "transformer", "random")


@dataclass(frozen=True)
class RunSummary:
    """One run in numbers; None where a number does not exist.

    Attributes:
        final_transformer: its return at the run's last evaluation.
        final_transformer_std: over the episodes of that evaluation.
        best_transformer: the highest return of any evaluation.
        handed_over: the accelerator's return at its last evaluation up to the switch.
        random: return of the random policy.
        steps: stage -> counted steps spent in it.
        switch_seconds: wall-clock at the switch.
        gain: final_transformer - handed_over, once it was evaluated after the switch.
        imitation_gap: the share of the accelerator's rise above random that its clone lacked, at
            the last check up to the switch.
        stuck: whether more cloning no longer brought the clone nearer, at that check.
        standing: what the switch rule said at the run's last check.
        data_rows: steps recorded before the run that taught it too; not among its counted steps.
    """

    run: Run
    final_transformer: float | None
    final_transformer_std: float | None
    best_transformer: float | None
    handed_over: float | None
    random: float | None
    steps: dict[str, int]
    switch_seconds: float | None
    gain: float | None
    imitation_gap: float | None
    stuck: bool
    standing: str | None
    data_rows: int | None


def summarise(run: Run) -> RunSummary:
    """The headline numbers of one run."""
    switch = run.switch
    switch_step = int(switch["step"]) if switch else None
    accelerator = run.series("eval/accelerator/return")
    until_switch = accelerator.value
    if switch_step is not None:
        until_switch = accelerator.value[accelerator.step <= switch_step]
    evaluations = run.series("eval/transformer/return")
    transformer = evaluations.value
    transformer_std = run.series("eval/transformer/return_std").value
    random = run.series("eval/random/return").value
    gain = None
    if switch_step is not None and len(until_switch) and (evaluations.step > switch_step).any():
        gain = float(transformer[-1] - until_switch[-1])
    return RunSummary(
        run=run,
        final_transformer=float(transformer[-1]) if len(transformer) else None,
        final_transformer_std=float(transformer_std[-1]) if len(transformer_std) else None,
        best_transformer=float(transformer.max()) if len(transformer) else None,
        handed_over=float(until_switch[-1]) if len(until_switch) else None,
        random=float(random[-1]) if len(random) else None,
        steps=_steps_per_stage(run, switch_step),
        switch_seconds=run.wall_at(switch_step) if switch_step is not None else None,
        gain=gain,
        imitation_gap=_last_until(run, "switch/imitation_gap", switch_step),
        stuck=bool(_last_until(run, "switch/stuck", switch_step)),
        standing=next(
            (line["switch/reason"] for line in reversed(run.lines) if "switch/reason" in line), None
        ),
        data_rows=int(data[-1]) if len(data := run.series("data/rows").value) else None,
    )


def _last_until(run: Run, name: str, step: int | None) -> float | None:
    """The newest value of a metric, up to a step if there is one."""
    series = run.series(name)
    values = series.value if step is None else series.value[series.step <= step]
    return float(values[-1]) if len(values) else None


def _steps_per_stage(run: Run, switch_step: int | None) -> dict[str, int]:
    if switch_step is not None:
        return {"accelerate": switch_step, "online": run.last_step - switch_step}
    stages = {str(line.get("stage")) for line in run.lines}
    return {"online" if stages == {"online"} else "accelerate": run.last_step}


@dataclass(frozen=True)
class GroupSummary:
    """The same over seeds: interquartile means with their bootstrap intervals."""

    group: Group
    runs: tuple[RunSummary, ...]
    transformer: Estimate | None
    accelerator: Estimate | None
    random: Estimate | None
    gain: Estimate | None

    @property
    def final(self) -> Estimate | None:
        """The return this group ends with: its last stage's learner."""
        return self.accelerator if self.group.actor == "accelerator" else self.transformer


def summarise_group(group: Group) -> GroupSummary:
    """The headline numbers of a group of seeds."""
    runs = tuple(summarise(run) for run in group.runs)

    def over_seeds(values: list[float | None]) -> Estimate | None:
        return Estimate.of([value for value in values if value is not None])

    return GroupSummary(
        group=group,
        runs=runs,
        transformer=over_seeds([run.final_transformer for run in runs]),
        accelerator=over_seeds([run.handed_over for run in runs]),
        random=over_seeds([run.random for run in runs]),
        gain=over_seeds([run.gain for run in runs]),
    )


@dataclass(frozen=True)
class Verdict:
    """One sentence about the outcome; `tone` is "good", "bad" or "neutral"."""

    tone: str
    headline: str
    details: tuple[str, ...]


def judge(summary: GroupSummary) -> Verdict:
    """What happened, in plain words, good or bad."""
    details = [
        f"Seed {run.seed} stands at step {run.last_step:,} of {run.total_steps:,}: "
        "its numbers are not final."
        for run in summary.group.runs
        if not run.finished
    ]
    final = summary.final
    if final is None:
        return Verdict("neutral", "There is no evaluation of the policy yet.", tuple(details))

    actor = summary.group.actor
    if summary.random is not None and final.value <= summary.random.value:
        details.append(
            f"The {actor} is no better than random actions "
            f"({number(final.value)} against {number(summary.random.value)})."
        )
    switched = [run for run in summary.runs if run.run.switch is not None]
    if actor == "transformer" and summary.accelerator is not None and switched:
        tone, headline = _end_against_switch(summary, switched)
        details = [*_certainty(summary, len(switched)), *details]
        if summary.random is not None and summary.accelerator.value <= summary.random.value:
            tone = "bad" if tone == "bad" else "neutral"
            details.append(
                "At the switch the accelerator was no better than random actions "
                f"({number(summary.random.value)}): to end above it says little."
            )
    elif actor == "transformer" and summary.accelerator is not None:
        tone = "neutral"
        headline = (
            "No run has switched: the transformer is still a clone "
            f"({number(final.value)}, accelerator {number(summary.accelerator.value)})."
        )
    else:
        tone = "neutral"
        role = "trained alone" if actor == "accelerator" else "trained from scratch"
        headline = f"The {actor}, {role}, ended at {number(final.value)}."
    details += _data(summary)
    details += _imitation(summary)
    if summary.group.kind == "two stages":
        details += [
            f"Seed {run.run.seed} never switched{f': {run.standing}' if run.standing else ''}."
            for run in summary.runs
            if run.run.switch is None
        ]
    rollbacks = sum(len(run.run.rollbacks) for run in summary.runs)
    if rollbacks:
        times = "once" if rollbacks == 1 else f"{rollbacks} times"
        details.append(f"Training went back to its best snapshot {times}.")
    return Verdict(tone, headline, tuple(details))


def _data(summary: GroupSummary) -> list[str]:
    """What was learnt from without a step of the environment."""
    found = [run.data_rows for run in summary.runs if run.data_rows is not None]
    if not found:
        return []
    low, high = min(found), max(found)
    rows = f"{low:,}" if low == high else f"{low:,} to {high:,}"
    return [
        f"Each run also learnt from {rows} rows of data recorded before it, which are not among "
        "the counted steps."
    ]


GAP_WORTH_TELLING = 0.1


def _imitation(summary: GroupSummary) -> list[str]:
    """What the clone did not take over from its accelerator, where that is much."""
    gaps = [run.imitation_gap for run in summary.runs if run.imitation_gap is not None]
    mean = sum(gaps) / len(gaps) if gaps else 0.0
    if mean <= GAP_WORTH_TELLING:
        return []
    privileged = "accelerator" in (summary.group.runs[0].config.get("privileged") or ())
    why = ": the accelerator was privileged and saw what the transformer cannot" * privileged
    told = [
        f"The clone lacked {mean:.0%} of what the accelerator had gained over random actions{why}."
    ]
    stuck = sum(run.stuck for run in summary.runs)
    if stuck:
        told.append(
            f"On {stuck} of {len(summary.runs)} seeds more cloning no longer brought it nearer: "
            "the accelerator may act on what the transformer cannot see."
        )
    return told


def compare(summaries: Sequence[GroupSummary]) -> Verdict:
    """Which method of one environment ended highest, and whether that is decided."""
    ranked = sorted(
        ((summary, summary.final) for summary in summaries if summary.final is not None),
        key=lambda pair: pair[1].value,
        reverse=True,
    )
    if len(ranked) < 2:
        return Verdict("neutral", "There is nothing to compare yet.", ())
    (best, first), (_, second) = ranked[:2]
    headline = (
        f"{best.group.name} ({best.group.kind}) ended highest: {number(first.value)}, "
        f"the next best {number(second.value)}."
    )
    details: list[str] = []
    two_stage = [summary for summary, _ in ranked if summary.group.kind == "two stages"]
    if two_stage and best not in two_stage:
        details.append("The two-stage run does not win here.")
    if first.low is None or second.high is None:
        details.append("A single seed carries no interval: the order is not decided.")
    elif first.low <= second.high:
        details.append("The 95 % intervals of the first two overlap: the order is not decided.")
    tone = "neutral" if details else "good"
    if two_stage and best not in two_stage:
        tone = "bad"
    return Verdict(tone, headline, tuple(details))


def _end_against_switch(summary: GroupSummary, switched: list[RunSummary]) -> tuple[str, str]:
    """Transformer at the end against the accelerator at the switch, over the switched seeds."""
    compared = [run for run in switched if run.gain is not None]
    gains = [run.gain for run in compared if run.gain is not None]
    ended = Estimate.of([run.final_transformer or 0.0 for run in compared])
    parent = Estimate.of([run.handed_over or 0.0 for run in compared])
    if ended is None or parent is None:
        return "neutral", "The transformer has not been evaluated since the switch."
    above = sum(gain > 0 for gain in gains)
    if ended.value > parent.value:
        tone, relation = "good", "above"
    elif ended.value < parent.value:
        tone, relation = "bad", "below"
    else:
        tone, relation = "neutral", "level with"
    seeds = "" if len(gains) == 1 else f", above it on {above} of {len(gains)} seeds"
    headline = (
        f"The transformer ended {relation} the accelerator it was cloned from: "
        f"{number(ended.value)} against {number(parent.value)} at the switch{seeds}."
    )
    return tone, headline


def _certainty(summary: GroupSummary, num_switched: int) -> list[str]:
    gain = summary.gain
    if gain is None:
        return []
    if gain.low is None or gain.high is None:
        return ["One seed: nothing is known of the spread between seeds."]
    interval = f"{signed(gain.low)} to {signed(gain.high)}"
    if gain.low <= 0 <= gain.high:
        return [
            f"The 95 % interval of the difference, {interval}, includes zero: "
            f"{num_switched} seeds do not decide it."
        ]
    few = " (with so few seeds the interval is rough)" if num_switched < 5 else ""
    return [f"The 95 % interval of the difference is {interval}{few}."]


def number(value: float | None, like: float | None = None) -> str:
    """A return as a reader wants it: 4,413, 312.4 or -0.127; a dash for None.

    Args:
        value: the number.
        like: another one whose number of decimals is taken, such as the mean of a deviation.
    """
    if value is None:
        return "\N{EN DASH}"
    size = abs(value if like is None else like)
    decimals = 0 if size >= 1000 or size == 0 else 1 if size >= 10 else 3 if size < 1 else 2
    return f"{value:,.{decimals}f}".replace("-", "\N{MINUS SIGN}")


def signed(value: float) -> str:
    """A difference: +859 or -12.3, with a true minus sign."""
    return f"+{number(value)}" if value > 0 else number(value)


def duration(seconds: float | None) -> str:
    """A time as a reader wants it: 42 s, 12 min 5 s or 1 h 3 min; a dash for None."""
    if seconds is None:
        return "\N{EN DASH}"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
