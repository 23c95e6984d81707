"""The commands that run something: train, resume, branch, evaluate."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from tyro.conf import Positional, arg

from slipstream import config as configuration
from slipstream.config import RunConfig
from slipstream.errors import SlipstreamError
from slipstream.rundir import run_of

if TYPE_CHECKING:
    from slipstream.policies.policy import Policy


@dataclass(frozen=True)
class TrainOptions:
    """What to start from and what to do; everything else configures the run."""

    env_id: Annotated[Positional[str], arg(metavar="ENV")]
    """Gymnasium id, such as HalfCheetah-v5, or a function that makes an environment, such as
    my_pkg.envs:make."""
    preset: str = "default"
    """Where the configuration starts from; see `slipstream presets`."""
    config: Path | None = None
    """A YAML file (as --print-config writes it) to start from instead of a preset."""
    run_dir: Path | None = None
    """Where to write; runs/<env>/<preset>/seed<k>-<time> by default."""
    print_config: bool = False
    """Print the configuration as YAML and stop."""
    dry_run: bool = False
    """Build everything, say how large it is, and stop."""
    quiet: bool = False
    """Show no progress."""


@dataclass(frozen=True)
class Train:
    """Train a transformer policy through both stages."""

    options: Annotated[TrainOptions, arg(name="")]
    run: Annotated[RunConfig, arg(name="")]


def _from_what_is_named(arguments: Sequence[str], command: str, what: str) -> list[str]:
    """The arguments without a plea for help, if they begin with that from which defaults follow.

    Returns:
        They, or nothing where help alone was asked for, or nothing was said.

    Raises:
        SlipstreamError: they begin with an option, and do not ask for help.
    """
    plain = [argument for argument in arguments if argument not in ("-h", "--help")]
    if plain and not plain[0].startswith("-"):
        return plain
    if plain and len(plain) == len(arguments):
        raise SlipstreamError(
            f"'{plain[0]}' stands before {what}, whose settings the options change: give "
            f"{what} first, as in slipstream {command} {what} {plain[0]} ..."
        )
    return []


def train(arguments: Sequence[str]) -> int:
    """`slipstream train ENV [--preset NAME] [any field of the configuration]`."""
    plain = _from_what_is_named(arguments, "train", "ENV")
    if not plain:
        options, start = None, RunConfig("ENV")
    else:
        options, _ = tyro.cli(
            TrainOptions, args=plain, return_unknown_args=True, add_help=False, prog="slipstream"
        )
        start = _start(options)
    given = tyro.cli(
        Train,
        args=arguments,
        default=Train(options or TrainOptions(tyro.MISSING), start),
        prog="slipstream train",
    )
    if given.options.print_config:
        print(configuration.to_yaml(given.run), end="")
        return 0
    from slipstream.presets.manipulation import picked
    from slipstream.training import describe, train

    fitted = "" if given.options.config is not None else picked(given.run)
    if fitted and not given.options.quiet:
        print(f"settings for ManiSkill's tasks: {fitted}")
    if given.options.dry_run:
        for line in describe(given.run):
            print(line)
        return 0
    run_dir = train(given.run, given.options.run_dir, show_progress=not given.options.quiet)
    print(run_dir)
    return 0


def _start(options: TrainOptions) -> RunConfig:
    from slipstream.presets import preset

    if options.config is None:
        return preset(options.preset, options.env_id)
    return configuration.load(options.config, env_id=options.env_id)


@dataclass(frozen=True)
class ResumeOptions:
    """Go on with a run from its last checkpoint, exactly where it stood."""

    run: Annotated[Positional[Path], arg(metavar="RUN")]
    """The run's folder, or one of its checkpoints to go back to."""
    quiet: bool = False
    """Show no progress."""


def resume(arguments: Sequence[str]) -> int:
    """`slipstream resume RUN`."""
    options = tyro.cli(ResumeOptions, args=arguments, prog="slipstream resume")
    from slipstream.training import resume

    print(resume(options.run, show_progress=not options.quiet))
    return 0


@dataclass(frozen=True)
class BranchOptions:
    """What to branch off and where to; everything else changes the run's configuration."""

    checkpoint: Annotated[Positional[Path], arg(metavar="CHECKPOINT")]
    """A run's folder, for its last checkpoint, or one of its checkpoints."""
    run_dir: Path | None = None
    """The new run's folder; runs/<env>/<preset>/seed<k>-<time> by default."""
    quiet: bool = False
    """Show no progress."""


@dataclass(frozen=True)
class Branch:
    """Go on from a checkpoint as a new run, with other settings from there on."""

    options: Annotated[BranchOptions, arg(name="")]
    run: Annotated[RunConfig, arg(name="")]


def branch(arguments: Sequence[str]) -> int:
    """`slipstream branch CHECKPOINT [any field of the configuration]`."""
    from slipstream.training import branch, config_of

    plain = _from_what_is_named(arguments, "branch", "CHECKPOINT")
    start = config_of(Path(plain[0])) if plain else RunConfig("ENV")
    given = tyro.cli(
        Branch,
        args=arguments,
        default=Branch(BranchOptions(tyro.MISSING), start),
        prog="slipstream branch",
    )
    options = given.options
    print(branch(options.checkpoint, given.run, options.run_dir, not options.quiet))
    return 0


@dataclass(frozen=True)
class EvaluateOptions:
    """Run a trained policy without exploration."""

    run: Annotated[Positional[Path], arg(metavar="RUN")]
    """A run's folder or one of its checkpoints."""
    episodes: int = 10
    """Episodes, each on a seed of its own."""
    seed: int = 0
    """Seed of the first episode."""
    checkpoint: Literal["last", "best"] = "last"
    """Which checkpoint of a run."""
    video: bool = False
    """Record episodes."""
    video_episodes: int = 1
    """How many of them."""
    video_dir: Path | None = None
    """Where to; `videos` beside the run's checkpoints by default."""
    json: bool = False
    """Print one JSON object instead of text."""


def evaluate(arguments: Sequence[str]) -> int:
    """`slipstream evaluate RUN`."""
    options = tyro.cli(EvaluateOptions, args=arguments, prog="slipstream evaluate")
    if options.episodes < 1:
        raise SlipstreamError(f"--episodes is {options.episodes}; it must be at least 1")
    if options.seed < 0:
        raise SlipstreamError(f"--seed is {options.seed}; it must be at least 0")
    if options.video and not 1 <= options.video_episodes <= options.episodes:
        raise SlipstreamError(
            f"--video-episodes is {options.video_episodes}; it must be at least 1, and no more "
            f"than --episodes {options.episodes}"
        )
    from slipstream.policies.policy import evaluate_policy, load_policy

    policy = load_policy(options.run, options.checkpoint)
    spec = policy.spec
    videos = _record(options, policy) if options.video else []
    evaluation = evaluate_policy(policy, options.episodes, options.seed)
    if options.json:
        print(json.dumps(dataclasses.asdict(evaluation)))
        return 0
    spread = f" (worst {min(evaluation.returns):.1f}, best {max(evaluation.returns):.1f})"
    print(f"{spec.env_id}: return {evaluation.mean:.1f}{spread} over {options.episodes} episodes")
    if evaluation.successes is not None:
        print(f"success_once {sum(evaluation.successes) / options.episodes:.2f}")
    if evaluation.successes_at_end is not None:
        print(f"success_at_end {sum(evaluation.successes_at_end) / options.episodes:.2f}")
    for path in videos:
        print(path)
    return 0


def _record(options: EvaluateOptions, policy: "Policy") -> list[Path]:
    """The videos that `slipstream evaluate` was asked for."""
    from slipstream.checkpoint import resolve
    from slipstream.envs.film import VideoConfig
    from slipstream.judging.videos import record_episodes

    actor, name = str(policy.description["actor"]), "policy"
    if not (options.run / "model.safetensors").is_file():
        name = resolve(options.run, options.checkpoint).name
    step = int(name) if name.isdecimal() else None
    folder = run_of(options.run) / "videos" if options.video_dir is None else options.video_dir
    return record_episodes(
        policy.actor,
        partial(policy.open_filmed, size=VideoConfig.size),
        folder,
        f"{name if step is None else f'step{step}'}_{actor}",
        range(options.seed, options.seed + options.video_episodes),
        {"actor": actor, "step": step, "when": ["evaluate"]},
    )
