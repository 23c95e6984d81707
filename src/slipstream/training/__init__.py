"""Starting a run, going on with one, and saying what one would be."""

import os
import shutil
from pathlib import Path

from slipstream import checkpoint
from slipstream.accelerators import describe_brought
from slipstream.config import RunConfig, load, to_dict
from slipstream.errors import SlipstreamError
from slipstream.logs.logger import last_step
from slipstream.rundir import check_free, describe_run, forget, held, new_run_dir, run_of
from slipstream.training.trainer import Trainer


def train(config: RunConfig, run_dir: Path | str | None = None, show_progress: bool = True) -> Path:
    """Run both stages.

    Args:
        config: what to train.
        run_dir: where to write; None makes `runs/<env>/<preset>/seed<k>-<time>`.
        show_progress: draw the progress display.

    Returns:
        The run folder.

    Raises:
        SlipstreamError: a configuration that cannot run, or a folder that holds a run already.
    """
    if not isinstance(config, RunConfig):
        raise SlipstreamError(
            f"train takes a RunConfig, not {config!r}; make one of a preset and an environment's "
            "id: slipstream.preset('default', 'Pendulum-v1')"
        )
    folder = _folder(config, run_dir)
    trainer = _built(config, folder, None, show_progress)
    describe_run(folder, to_dict(trainer.state.config))
    with held(folder):
        return trainer.run()


def _built(config: RunConfig, folder: Path, source: Path | None, show_progress: bool) -> Trainer:
    """What runs in a new folder, which is not left behind where the run cannot be built."""
    check_free(folder)
    was_there = folder.exists()
    try:
        return Trainer(config, folder, source, show_progress)
    except BaseException:
        if not was_there:
            shutil.rmtree(folder, ignore_errors=True)
        raise


def _folder(config: RunConfig, run_dir: Path | str | None) -> Path:
    if run_dir is None:
        return new_run_dir(Path("runs"), config.env_id, config.preset, config.seed)
    return Path(run_dir)


def describe(config: RunConfig) -> list[str]:
    """Build everything that a run would, and say how large it is; nothing is left behind.

    A folder is made, for as long as this takes, only where a replay lies on the disk.

    Raises:
        SlipstreamError: a configuration that cannot run, here.
    """
    folder = Path(f".slipstream-dry-run-{os.getpid()}")
    try:
        return _describe(Trainer(config, folder, show_progress=False))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _describe(trainer: Trainer) -> list[str]:
    team = trainer.state.team
    lines = [
        f"environment {team.spec.env_id}: observations "
        f"{ {key: value.shape for key, value in team.spec.obs.items()} }, "
        f"{team.spec.action_dim} action components"
    ]
    for name, module in team.modules().items():
        count = sum(parameter.numel() for parameter in module.parameters())
        lines.append(f"{name}: {count:,} parameters")
    lines.extend(team.say_memory().split("; "))
    if team.brought is not None:
        lines.append(f"accelerator {describe_brought(team.brought)}")
    lines.append(f"matrix products: {trainer.state.matmul}")
    trainer.state.close()
    return lines


def resume(path: Path | str, show_progress: bool = True) -> Path:
    """Go on with a run from a checkpoint, or from its beginning where it never came to one.

    On the CPU the result equals, bit for bit, that of a run never interrupted.

    Args:
        path: a run folder, for its last checkpoint, or one of its checkpoints.
        show_progress: draw the progress display.

    Returns:
        The run folder.

    Raises:
        SlipstreamError: no run there, no whole checkpoint, or one that is still running.
    """
    path = Path(path)
    run_dir, config = run_of(path), config_of(path)
    with held(run_dir):
        if path == run_dir and _came_to_no_checkpoint(run_dir, config):
            trainer = Trainer(config, run_dir, show_progress=show_progress)
            trainer.progress.message("this run came to no checkpoint: it begins again")
            forget(run_dir)
        else:
            trainer = Trainer(config, run_dir, checkpoint.resolve(path), show_progress)
        return trainer.run()


def _came_to_no_checkpoint(run_dir: Path, config: RunConfig) -> bool:
    """Whether a run ended before its first checkpoint was due, rather than lost those it had."""
    came_to = last_step(run_dir / "metrics.jsonl")
    began = (run_dir / "versions.json").exists()
    return began and came_to < config.checkpoint_every and checkpoint.never_saved(run_dir)


def branch(
    path: Path | str,
    config: RunConfig,
    run_dir: Path | str | None = None,
    show_progress: bool = True,
) -> Path:
    """Go on from a checkpoint as a new run; the run it belongs to stays as it is.

    Args:
        path: a run folder, for its last checkpoint, or one of its checkpoints.
        config: what holds from there on, such as `config_of(path)` with more steps or another
            switch. What is in the checkpoint (networks, optimizers, replay, steps taken) stays, so
            sizes must stay too.
        run_dir: where to write; None makes `runs/<env>/<preset>/seed<k>-<time>`.
        show_progress: draw the progress display.

    Returns:
        The new run's folder; its metrics begin with those of the run it branched off.

    Raises:
        SlipstreamError: no run there, no whole checkpoint, a configuration that does not fit it or
            leaves nothing to do, or a folder that holds a run already.
    """
    source = checkpoint.resolve(Path(path))
    if not checkpoint.can_resume(source):
        raise SlipstreamError(f"{source} holds a policy only; branch off the run's last")
    step = int(source.name)
    if step >= config.total_steps:
        raise SlipstreamError(
            f"{source} has taken all of total_steps {config.total_steps}; branch off an earlier "
            "checkpoint, or raise --total-steps"
        )
    folder = _folder(config, run_dir)
    trainer = _built(config, folder, source, show_progress)
    describe_run(folder, to_dict(config))
    shutil.copy(run_of(source) / "metrics.jsonl", folder / "metrics.jsonl")
    shutil.copytree(source, folder / "checkpoints" / source.name)
    with held(folder):
        return trainer.run()


def config_of(path: Path) -> RunConfig:
    """The configuration of the run at `path`, its folder or one of its checkpoints.

    Raises:
        SlipstreamError: no run there.
    """
    run_dir = run_of(path)
    if not (run_dir / "config.json").exists():
        raise SlipstreamError(f"{run_dir} holds no run (no config.json); give a run's folder")
    return load(run_dir / "config.json")
