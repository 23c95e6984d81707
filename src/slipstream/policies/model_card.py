"""The model card of a run's policy: what is known of it, as Markdown and as metadata."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from slipstream.errors import SlipstreamError
from slipstream.report.runs import Run
from slipstream.report.statistics import bootstrap_interval
from slipstream.report.summary import RunSummary, number, summarise

if TYPE_CHECKING:
    from huggingface_hub import ModelCardData

SETTINGS, PICTURE = "train.yaml", "learning-steps.png"
"""Files beside the card that it names: the run's configuration and its learning curve."""
FEW_EPISODES = 10


@dataclass(frozen=True)
class Evaluated:
    """What is known of the weights in a checkpoint.

    Attributes:
        step: counted steps at the checkpoint.
        eval_step: counted steps at the last evaluation up to there.
        returns: of that evaluation's episodes.
        low: lower bound of the mean's 95 % bootstrap interval; None for a single episode.
        high: the upper one.
        success: share of its episodes that succeeded; None where the environment does not tell.
    """

    step: int
    eval_step: int
    returns: tuple[float, ...]
    low: float | None
    high: float | None
    success: float | None

    @property
    def mean(self) -> float:
        """Mean return of the episodes."""
        return float(np.mean(self.returns))


def evaluated_at(run: Run, actor: str, step: int) -> Evaluated:
    """The last evaluation of an actor up to a step.

    Raises:
        SlipstreamError: there is none.
    """
    key = f"eval/{actor}/returns"
    lines = [line for line in run.lines if line["step"] <= step and line.get(key)]
    if not lines:
        raise SlipstreamError(
            f"{run.path} has no evaluation of its {actor} up to step {step}, which the model card "
            "is to tell; go on with the run, or take another checkpoint"
        )
    line = lines[-1]
    returns = tuple(map(float, line[key]))
    low = high = None
    if len(returns) > 1:
        bounds = bootstrap_interval(np.array(returns), np.mean)
        low, high = (float(bound) for bound in bounds)
    success = line.get(f"eval/{actor}/success_once")
    return Evaluated(step, int(line["step"]), returns, low, high, success)


def card_of(
    run: Run,
    described: Mapping[str, Any],
    evaluated: Evaluated,
    checkpoint: str,
    repo: str,
    caption: str | None,
) -> str:
    """The whole card; needs huggingface_hub.

    Args:
        run: whose policy it is.
        described: the `config.json` beside the weights.
        evaluated: what is known of them.
        checkpoint: which one of the run they are from: "last" or "best".
        repo: the place that they are meant for, user/name.
        caption: how to read the learning curve; None where there is none.
    """
    text = "\n".join(_card(run, described, evaluated, checkpoint, repo, caption))
    return f"---\n{_card_data(run, described, evaluated).to_yaml()}\n---\n\n{text}\n"


def _card_data(run: Run, described: Mapping[str, Any], evaluated: Evaluated) -> "ModelCardData":
    from huggingface_hub import EvalResult, ModelCardData

    args: dict[str, Any] = {"episodes": len(evaluated.returns)}
    if evaluated.low is not None and evaluated.high is not None:
        args["bootstrap_95"] = [round(evaluated.low, 4), round(evaluated.high, 4)]
    metrics = [("mean_return", "mean return of evaluation episodes", evaluated.mean)]
    if evaluated.success is not None:
        metrics.append(("success_once", "share of episodes that succeed", evaluated.success))
    results = [
        EvalResult(
            task_type="reinforcement-learning",
            task_name="reinforcement learning",
            dataset_type=run.env_id,
            dataset_name=run.env_id,
            metric_type=kind,
            metric_name=name,
            metric_value=round(float(value), 4),
            metric_args=args if kind == "mean_return" else None,
        )
        for kind, name, value in metrics
    ]
    return ModelCardData(
        library_name="slipstream",
        pipeline_tag="reinforcement-learning",
        tags=[
            "reinforcement-learning",
            "deep-reinforcement-learning",
            "slipstream",
            str(described["kind"]),
            run.env_id,
        ],
        model_name=f"{described['kind']}-{run.env_id}",
        eval_results=results,
    )


def _card(
    run: Run,
    described: Mapping[str, Any],
    evaluated: Evaluated,
    checkpoint: str,
    repo: str,
    caption: str | None,
) -> Iterator[str]:
    """The card's text, part by part."""
    kind = described["kind"]
    yield f"# {kind} policy for {run.env_id}\n"
    yield (
        f"A policy ({kind}) for the environment `{run.env_id}`, trained online by Slipstream "
        f"{run.versions.get('slipstream', '')} with {str(run.config.get('algorithm')).upper()}.\n"
    )
    yield "## Results\n\n| | |\n|---|---|"
    for name, value in _rows(run, summarise(run), evaluated, checkpoint):
        yield f"| {name} | {value} |"
    yield ""
    for note in _notes(run, evaluated, checkpoint):
        yield f"- {note}"
    if caption is not None:
        yield f"\n## Learning curve\n\n![Return over counted steps]({PICTURE})\n\n{caption}"
    yield _USE.format(repo=repo, config=SETTINGS, env=run.env_id)
    yield "| setting | |\n|---|---|"
    for name in _SETTINGS:
        if name in run.config:
            yield f"| `{name}` | {_told(run.config[name])} |"
    versions = ", ".join(f"{name} {value}" for name, value in run.versions.items() if value)
    if versions:
        yield f"\nTrained with {versions}."


def _rows(
    run: Run, summary: RunSummary, evaluated: Evaluated, checkpoint: str
) -> Iterator[tuple[str, str]]:
    interval = ""
    if evaluated.low is not None and evaluated.high is not None:
        like = evaluated.mean
        interval = (
            f" (95 % interval {number(evaluated.low, like)} to {number(evaluated.high, like)})"
        )
    yield "mean return", f"**{number(evaluated.mean)}**{interval}"
    yield "evaluation episodes", f"{len(evaluated.returns)}, without exploration"
    if evaluated.success is not None:
        yield "episodes that succeed", f"{evaluated.success:.0%}"
    if summary.random is not None:
        yield "return of random actions", number(summary.random)
    if run.switch is not None:
        yield "return of the accelerator at the switch", number(summary.handed_over)
    yield "checkpoint", f"{checkpoint}, at step {evaluated.step:,}"
    steps = ", ".join(f"{count:,} in stage '{stage}'" for stage, count in summary.steps.items())
    yield "counted environment steps of the run", f"{run.last_step:,}: {steps}"
    yield "steps of evaluation, not counted", f"{run.eval_steps:,}"
    if summary.data_rows is not None:
        yield "rows of data recorded before, not counted", f"{summary.data_rows:,}"
    yield "seed", str(run.seed)


def _notes(run: Run, evaluated: Evaluated, checkpoint: str) -> Iterator[str]:
    """What the numbers do not say by themselves."""
    if evaluated.low is not None:
        yield (
            "The interval is a percentile bootstrap over the evaluation episodes: it tells how "
            "well the mean of this one policy is known. It does not tell how another seed of "
            "training would end."
        )
    if 1 < len(evaluated.returns) < FEW_EPISODES:
        yield f"Over {len(evaluated.returns)} episodes such an interval is rough, and too narrow."
    if checkpoint == "best":
        yield (
            "The checkpoint was chosen because it had the highest return of all evaluations: "
            "expect less on new episodes."
        )
    if evaluated.eval_step != evaluated.step:
        yield (
            f"The evaluation was at step {evaluated.eval_step:,}, the weights are those of step "
            f"{evaluated.step:,}."
        )
    if any(int(event["step"]) == evaluated.eval_step for event in run.rollbacks):
        yield (
            "After this evaluation training went back to its best snapshot: the weights are not "
            "those that were evaluated."
        )
    if not run.finished:
        yield f"The run was not finished: step {run.last_step:,} of {run.total_steps:,}."


def _told(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    return str(value).replace("|", "\\|")


_SETTINGS = (
    "preset",
    "algorithm",
    "stages",
    "accelerator",
    "transformer",
    "privileged",
    "total_steps",
    "batch_size",
    "utd_ratio",
)

_USE = """
## Use

```sh
pip install 'slipstream-rl[hub]'
```

```python
import slipstream
from huggingface_hub import snapshot_download

policy = slipstream.load_policy(snapshot_download("{repo}"))
print(slipstream.evaluate(policy, episodes=10, seed=1000).mean)
```

`policy.step(obs, carry)` acts in the environment's own units, and `policy.predict` as the models of
Stable-Baselines3 do. Loading runs no code: the weights are safetensors, the rest is JSON.

## Settings

`{config}` is the whole configuration: `slipstream train {env} --config {config}` trains anew.
"""
