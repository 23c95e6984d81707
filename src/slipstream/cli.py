"""The command line: what each command takes, and whom it calls."""

import dataclasses
import inspect
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from tyro.conf import Positional, arg

from slipstream import config as configuration
from slipstream.config import RunConfig
from slipstream.errors import Interrupted, SlipstreamError

if TYPE_CHECKING:
    from slipstream.policy import Policy


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


def train(arguments: Sequence[str]) -> int:
    """`slipstream train ENV [--preset NAME] [any field of the configuration]`."""
    plain = [argument for argument in arguments if argument not in ("-h", "--help")]
    if not plain or plain[0].startswith("-"):
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
    from slipstream.training import describe, train

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
    loaded = configuration.load(options.config)
    return dataclasses.replace(loaded, env_id=options.env_id)


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

    named = bool(arguments) and not arguments[0].startswith("-")
    start = config_of(Path(arguments[0])) if named else RunConfig("ENV")
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
    video: tuple[Path, ...] | None = None
    """Record episodes, in this folder, or in `videos` beside the run's checkpoints."""
    video_episodes: int = 1
    """How many of them."""
    json: bool = False
    """Print one JSON object instead of text."""


def evaluate(arguments: Sequence[str]) -> int:
    """`slipstream evaluate RUN`."""
    options = tyro.cli(EvaluateOptions, args=arguments, prog="slipstream evaluate")
    if options.episodes < 1 or options.seed < 0:
        raise SlipstreamError(
            f"--episodes {options.episodes} must be at least 1, --seed {options.seed} at least 0"
        )
    if options.video is not None and (
        len(options.video) > 1 or not 1 <= options.video_episodes <= options.episodes
    ):
        raise SlipstreamError(
            f"--video takes one folder, got {len(options.video)}; --video-episodes "
            f"{options.video_episodes} must be at least 1, and no more than --episodes"
        )
    from slipstream.policy import evaluate_policy, load_policy

    policy = load_policy(options.run, options.checkpoint)
    spec = policy.spec
    videos = [] if options.video is None else _record(options, policy, options.video)
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


def _record(options: EvaluateOptions, policy: "Policy", given: tuple[Path, ...]) -> list[Path]:
    """The videos that `slipstream evaluate` was asked for."""
    from slipstream.checkpoint import resolve
    from slipstream.envs.film import VideoConfig
    from slipstream.videos import record_episodes

    actor, name = str(policy.description["actor"]), "policy"
    if not (options.run / "model.safetensors").is_file():
        name = resolve(options.run, options.checkpoint).name
    step = int(name) if name.isdecimal() else None
    folder = given[0] if given else _run_of(options.run) / "videos"
    return record_episodes(
        policy.actor,
        partial(policy.open_filmed, size=VideoConfig.size),
        folder,
        f"{name if step is None else f'step{step}'}_{actor}",
        range(options.seed, options.seed + options.video_episodes),
        {"actor": actor, "step": step, "when": ["evaluate"]},
    )


@dataclass(frozen=True)
class ExportOptions:
    """Write a trained policy for where Slipstream is not: one step of it, the memory in and out."""

    run: Annotated[Positional[Path], arg(metavar="RUN")]
    """A run's folder, one of its checkpoints, or a folder that holds a policy alone."""
    to: Literal["onnx", "torch-export", "safetensors"] = "onnx"
    """onnx writes a script beside the file that needs numpy and onnxruntime alone; safetensors is
    the weights and their description."""
    checkpoint: Literal["last", "best"] = "last"
    """Which checkpoint of a run."""
    out: Path | None = None
    """The folder to write; export/<format> in the run's folder by default."""


def export(arguments: Sequence[str]) -> int:
    """`slipstream export RUN --to FORMAT`."""
    options = tyro.cli(ExportOptions, args=arguments, prog="slipstream export")
    from slipstream.export import export_policy
    from slipstream.policy import load_policy

    policy = load_policy(options.run, options.checkpoint)
    out = options.out
    if out is None:
        out = _run_of(options.run) / "export" / options.to
    print(export_policy(policy, out, options.to))
    return 0


def _run_of(path: Path) -> Path:
    """The run that a checkpoint, or a folder in one, belongs to; else the folder itself."""
    whole = path.absolute()
    inside = [folder.parent for folder in (whole, *whole.parents) if folder.name == "checkpoints"]
    return inside[0] if inside else path


@dataclass(frozen=True)
class DistilOptions:
    """Clone a trained policy into a smaller one, and tell what that costs and saves."""

    run: Annotated[Positional[Path], arg(metavar="RUN")]
    """A run's folder or one of its checkpoints: the teacher."""
    to: str = "mlp"
    """The smaller policy's kind of network: mlp, gru, lstm or transformer."""
    total_steps: int = 20_000
    """Env steps in which the teacher shows what it does."""
    own_episodes: int = 3
    """Episodes of the pupil itself, labelled by the teacher."""
    episodes: int = 10
    """Episodes by which both are compared."""
    run_dir: Path | None = None
    """Where to write; runs/<env>/distil/seed<k>-<time> by default."""
    quiet: bool = False
    """Show no progress."""


def distil(arguments: Sequence[str]) -> int:
    """`slipstream distil RUN --to mlp`."""
    options = tyro.cli(DistilOptions, args=arguments, prog="slipstream distil")
    if options.episodes < 1:
        raise SlipstreamError(f"--episodes {options.episodes} must be at least 1")
    from slipstream.distil import compare, distil_config
    from slipstream.training import train

    config = distil_config(options.run, options.to, options.total_steps, options.own_episodes)
    run_dir = train(config, options.run_dir, show_progress=not options.quiet)
    print(run_dir)
    for name, found in compare(options.run, run_dir, options.episodes).items():
        mean = sum(found.returns) / len(found.returns)
        print(
            f"{name}: return {mean:.1f} (worst {min(found.returns):.1f}), "
            f"{found.microseconds:.0f} microseconds a step, {found.num_parameters:,} parameters"
        )
    return 0


@dataclass(frozen=True)
class PushOptions:
    """Upload a run's policy to the Hugging Face Hub, with a model card made from the run."""

    run: Annotated[Positional[Path], arg(metavar="RUN")]
    """A run's folder."""
    repo: str
    """The repository, user/name; made if missing."""
    private: bool = False
    """Nobody else may see it."""
    checkpoint: Literal["last", "best"] = "last"
    """Which checkpoint of the run."""
    out: Path | None = None
    """The folder that is written and then uploaded; `hub` in the run's folder by default."""
    dry_run: bool = False
    """Write the folder and stop: nothing leaves this machine."""


def push(arguments: Sequence[str]) -> int:
    """`slipstream push RUN --repo USER/NAME`."""
    options = tyro.cli(PushOptions, args=arguments, prog="slipstream push")
    from slipstream import hub

    hub.check_repo(options.repo)
    out = options.run / "hub" if options.out is None else options.out
    if options.dry_run:
        print(hub.write_hub_folder(options.run, out, options.checkpoint, options.repo))
    else:
        print(hub.push(options.run, options.repo, options.private, options.checkpoint, out))
    return 0


@dataclass(frozen=True)
class ReportOptions:
    """Write one HTML page with the learning curves of one or more runs."""

    runs: Annotated[Positional[tuple[Path, ...]], arg(metavar="RUN [RUN ...]")]
    """Run folders; seeds of the same environment and preset are pooled."""
    out: Path | None = None
    """The page to write; report.html in the first run's folder by default."""


def report(arguments: Sequence[str]) -> int:
    """`slipstream report RUN...`."""
    options = tyro.cli(ReportOptions, args=arguments, prog="slipstream report")
    if not options.runs:
        raise SlipstreamError("no run was named; give one or more run folders")
    from slipstream.report.html import write_report

    out = options.runs[0] / "report.html" if options.out is None else options.out
    print(write_report(options.runs, out))
    return 0


@dataclass(frozen=True)
class PresetsOptions:
    """List the presets."""


def presets(arguments: Sequence[str]) -> int:
    """`slipstream presets`."""
    tyro.cli(PresetsOptions, args=arguments, prog="slipstream presets")
    from slipstream.presets import PRESETS

    width = max(map(len, PRESETS))
    for name, function in PRESETS.items():
        summary = (inspect.getdoc(function) or "").splitlines()[0]
        print(f"{name:{width}}  {summary}")
    return 0


@dataclass(frozen=True)
class DoctorOptions:
    """Tell what is installed and works here, and how to get what does not."""

    json: bool = False
    """Print one JSON object instead of a table."""


def doctor(arguments: Sequence[str]) -> int:
    """`slipstream doctor`."""
    options = tyro.cli(DoctorOptions, args=arguments, prog="slipstream doctor")
    from slipstream.doctor import all_required, examine, show

    findings = list(examine()) if options.json else show(examine())
    ok = all_required(findings)
    if options.json:
        found = [dataclasses.asdict(finding) for finding in findings]
        print(json.dumps({"ok": ok, "findings": found}))
    return 0 if ok else 1


INTERRUPTED = 130  # what shells make of Ctrl-C: 128 + SIGINT

COMMANDS = {
    "train": train,
    "resume": resume,
    "branch": branch,
    "evaluate": evaluate,
    "export": export,
    "push": push,
    "distil": distil,
    "report": report,
    "presets": presets,
    "doctor": doctor,
}


@dataclass(frozen=True)
class Command:
    """Slipstream trains transformer policies in online reinforcement learning.

    Each command has a --help of its own.
    """

    command: Annotated[
        Literal[
            "train",
            "resume",
            "branch",
            "evaluate",
            "export",
            "distil",
            "push",
            "report",
            "presets",
            "doctor",
        ],
        tyro.conf.Positional,
    ]
    """What to do."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    A user's mistake is one line on standard error and exit status 2, an interrupt one line and 130.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] not in COMMANDS:
        tyro.cli(Command, args=arguments[:1], prog="slipstream")
    try:
        return COMMANDS[arguments[0]](arguments[1:])
    except Interrupted as error:
        print(f"slipstream: {error}", file=sys.stderr)
        return INTERRUPTED
    except SlipstreamError as error:
        print(f"slipstream: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("slipstream: interrupted", file=sys.stderr)
        return INTERRUPTED


def script() -> None:
    """The `slipstream` command."""
    sys.exit(main())
