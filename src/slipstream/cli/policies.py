"""The commands that make something of a trained policy: export, distil, push."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional, arg

from slipstream.errors import SlipstreamError
from slipstream.rundir import run_of


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
    from slipstream.policies.export import export_policy
    from slipstream.policies.policy import load_policy

    policy = load_policy(options.run, options.checkpoint)
    out = options.out
    if out is None:
        out = run_of(options.run) / "export" / options.to
    print(export_policy(policy, out, options.to))
    return 0


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
    from slipstream.policies.distil import compare, distil_config
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
    from slipstream.policies import hub

    hub.check_repo(options.repo)
    out = options.run / "hub" if options.out is None else options.out
    if options.dry_run:
        print(hub.write_hub_folder(options.run, out, options.checkpoint, options.repo))
    else:
        print(hub.push(options.run, options.repo, options.private, options.checkpoint, out))
    return 0
