"""A run's policy as a folder for the Hugging Face Hub: weights, model card and picture."""

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import yaml

from slipstream.checkpoint import resolve
from slipstream.errors import SlipstreamError
from slipstream.policies.policy import DESCRIPTION, WEIGHTS, load_policy
from slipstream.report.figures import group_pictures, save
from slipstream.report.runs import Run, group_runs, load_run
from slipstream.report.statistics import bootstrap_interval
from slipstream.report.summary import RunSummary, number, summarise, summarise_group
from slipstream.report.theme import LIGHT

if TYPE_CHECKING:
    from huggingface_hub import ModelCardData

CARD, SETTINGS, PICTURE = "README.md", "train.yaml", "learning-steps.png"
FILES = (DESCRIPTION, WEIGHTS, CARD, SETTINGS, PICTURE)
PLACE = "user/name"
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


def write_hub_folder(
    run_dir: Path | str,
    folder: Path | str,
    checkpoint: Literal["last", "best"] = "last",
    repo: str | None = None,
) -> Path:
    """Write the folder that `push` uploads; `load_policy` loads it.

    `config.json` and `model.safetensors` are a policy as checkpoints hold it, and where
    `huggingface_hub.PyTorchModelHubMixin` looks for a model; `README.md` is the model card,
    `train.yaml` the run's configuration, `learning-steps.png` its learning curve.

    Args:
        run_dir: a run's folder.
        folder: made if missing; such a folder that is there is replaced.
        checkpoint: which one of the run.
        repo: the place it is meant for, as the card names it.

    Returns:
        The folder.

    Raises:
        SlipstreamError: no run, no checkpoint or no evaluation there, huggingface_hub is missing,
            or the folder holds something else or cannot be written.
    """
    hub = _import_hub()
    run_dir, folder = Path(run_dir), Path(folder)
    run = load_run(run_dir)
    policy = load_policy(run_dir, checkpoint)
    actor = str(policy.description["actor"])
    evaluated = _evaluated(run, actor, _step(resolve(run_dir, checkpoint)))
    try:
        _check_folder(folder)
        # Made beside its place and then moved: a failure leaves no half of it.
        with tempfile.TemporaryDirectory(prefix=".hub-", dir=folder) as name:
            made = Path(name)
            policy.save(made)
            (made / SETTINGS).write_text(yaml.safe_dump(dict(run.config), sort_keys=False))
            caption = _draw(run, made)
            data = _card_data(hub, run, policy.description, evaluated)
            lines = _card(run, policy.description, evaluated, checkpoint, repo or PLACE, caption)
            text = "\n".join(lines)
            hub.ModelCard(f"---\n{data.to_yaml()}\n---\n\n{text}\n").save(made / CARD)
            for file in FILES:
                if (made / file).exists():
                    (made / file).replace(folder / file)
                else:
                    (folder / file).unlink(missing_ok=True)
    except OSError as error:
        raise SlipstreamError(
            f"cannot write to {folder}: {error}; give another folder or make room"
        ) from error
    return folder


def push(
    run_dir: Path | str,
    repo: str,
    private: bool = False,
    checkpoint: Literal["last", "best"] = "last",
    folder: Path | str | None = None,
) -> str:
    """Write the folder (see `write_hub_folder`) and upload it.

    Args:
        run_dir: a run's folder.
        repo: user/name on the Hub; made if missing.
        private: nobody else may see it.
        checkpoint: which one of the run.
        folder: where the folder is written; `hub` in the run's folder by default.

    Returns:
        The address of the upload.

    Raises:
        SlipstreamError: as `write_hub_folder`; a name that the Hub does not have, a public
            repository that was to be private, or an upload that failed.
    """
    check_repo(repo)
    hub = _import_hub()
    folder = write_hub_folder(run_dir, folder or Path(run_dir) / "hub", checkpoint, repo)
    api = hub.HfApi()
    try:
        api.create_repo(repo, repo_type="model", private=private or None, exist_ok=True)
        if private and not api.repo_info(repo, repo_type="model").private:
            raise SlipstreamError(
                f"{repo} is there already and is public; make it private on the Hub, choose "
                "another name, or leave out --private"
            )
        commit = api.upload_folder(
            repo_id=repo,
            folder_path=folder,
            repo_type="model",
            allow_patterns=list(FILES),
            commit_message=f"Upload a policy of Slipstream, checkpoint '{checkpoint}'",
        )
    except SlipstreamError:
        raise
    except Exception as error:  # the library's own errors, its transport's and the socket's
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise SlipstreamError(
            f"the upload to {repo} failed ({lines[0]}); log in with `hf auth login`; the folder "
            f"to upload is {folder}"
        ) from error
    return str(commit.commit_url)


def check_repo(repo: str) -> None:
    """See that a name is one of a repository, with its owner.

    Raises:
        SlipstreamError: it is not, or huggingface_hub is missing.
    """
    _import_hub()
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(repo)
        valid = repo.count("/") == 1
    except HFValidationError:
        valid = False
    if not valid:
        raise SlipstreamError(
            f"repo is '{repo}'; it must be user/name, of letters, digits, '-', '_' and '.'"
        )


def _import_hub() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise SlipstreamError(
            f"the Hub needs the package {error.name or 'huggingface_hub'}; install it with: "
            "pip install 'slipstream-rl[hub]'"
        ) from error
    return huggingface_hub


def _check_folder(folder: Path) -> None:
    """Make the folder, or see that it holds an earlier one of its kind at most."""
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(".hub-*"):
        shutil.rmtree(left, ignore_errors=True)
    others = sorted(
        path.name
        for path in folder.iterdir()
        if path.name not in FILES and not path.name.startswith(".")
    )
    if others:
        raise SlipstreamError(
            f"{folder} holds something else already ({', '.join(others[:3])}); give a new folder"
        )


def _step(checkpoint: Path) -> int:
    return int(json.loads((checkpoint / "manifest.json").read_text())["step"])


def _evaluated(run: Run, actor: str, step: int) -> Evaluated:
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


def _draw(run: Run, folder: Path) -> str | None:
    """The learning curve; returns how to read it, or None where there is no curve."""
    (group,) = group_runs([run])
    for picture in group_pictures(summarise_group(group), ""):
        if f"{picture.name}.png" == PICTURE:
            save(picture, LIGHT, folder)
            return picture.caption
    return None


def _card_data(
    hub: Any, run: Run, described: Mapping[str, Any], evaluated: Evaluated
) -> "ModelCardData":
    args: dict[str, Any] = {"episodes": len(evaluated.returns)}
    if evaluated.low is not None and evaluated.high is not None:
        args["bootstrap_95"] = [round(evaluated.low, 4), round(evaluated.high, 4)]
    metrics = [("mean_return", "mean return of evaluation episodes", evaluated.mean)]
    if evaluated.success is not None:
        metrics.append(("success_once", "share of episodes that succeed", evaluated.success))
    results = [
        hub.EvalResult(
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
    return hub.ModelCardData(
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
