"""Videos of evaluation episodes: one episode a file, what is known of it beside it."""

import importlib
import json
import os
import random
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from slipstream.envs.film import Show
from slipstream.envs.vec_env import VecEnv
from slipstream.errors import SlipstreamError
from slipstream.judging.evaluation import Evaluation, evaluate
from slipstream.networks import Actor

OpenFilmed = Callable[[Show], VecEnv]
"""Opens one environment whose first episode is shown, frame by frame."""

_Frames = Generator[None, Any, None]

# Small files that every browser plays: what is encoded can be watched while it is still loading.
_ENCODING = ("-crf", "25", "-preset", "veryfast", "-movflags", "+faststart", "-threads", "1")


def record_episodes(
    actor: Actor,
    open_filmed: OpenFilmed,
    folder: Path,
    name: str,
    seeds: Sequence[int],
    details: Mapping[str, Any],
) -> list[Path]:
    """Record one noise-free episode for each seed; no random generator of the process moves.

    Args:
        actor: the policy.
        open_filmed: opens the environment.
        folder: where to write `<name>_seed<k>.mp4`, and `.json` with what is known of it; made if
            missing, what is there under these names is replaced.
        name: of what is recorded.
        seeds: of the episodes.
        details: goes into the `.json`, before `seed`, `length`, `episode_return`, `success_once`.

    Returns:
        The videos.

    Raises:
        SlipstreamError: the encoder is missing, the environment cannot be rendered, or the disk
            refuses.
    """
    paths: list[Path] = []
    for seed in seeds:
        path = folder / f"{name}_seed{seed}.mp4"
        evaluation = _record(actor, open_filmed, path, seed)
        successes = evaluation.successes
        described = {
            **details,
            "seed": seed,
            "length": evaluation.lengths[0],
            "episode_return": evaluation.returns[0],
            "success_once": None if successes is None else successes[0],
        }
        with _disk(path):
            path.with_suffix(".json").write_text(json.dumps(described, indent=2) + "\n")
        paths.append(path)
    return paths


def check_videos(open_filmed: OpenFilmed) -> None:
    """Find out whether videos can be recorded: one frame is drawn, nothing is written.

    Raises:
        SlipstreamError: the encoder is missing, or the environment cannot be rendered.
    """
    _encoder()
    with _generators_kept(), closing(open_filmed(lambda frame, fps: None)) as env:
        env.reset(0)


def _record(actor: Actor, open_filmed: OpenFilmed, path: Path, seed: int) -> Evaluation:
    with _disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}")
    try:
        with (
            _generators_kept(),
            _disk(path),
            closing(_Video(unfinished)) as video,
            closing(open_filmed(video.add)) as env,
        ):
            evaluation = evaluate(actor, env, [seed])
        with _disk(path):
            os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    return evaluation


class _Video:
    """An MP4 file that takes frame by frame, so that an episode is never held in memory."""

    def __init__(self, path: Path) -> None:
        self._ffmpeg = _encoder()
        self._path = path
        self._frames: _Frames | None = None

    def add(self, frame: np.ndarray, fps: float) -> None:
        """Append one frame (H, W, 3) uint8; a last odd row or column is cut off."""
        height, width = (side - side % 2 for side in frame.shape[:2])
        if self._frames is None:
            self._frames = frames = cast(
                "_Frames",
                self._ffmpeg.write_frames(
                    str(self._path),
                    (width, height),
                    fps=fps,
                    codec="libx264",
                    quality=None,
                    macro_block_size=2,
                    output_params=list(_ENCODING),
                    ffmpeg_log_level="error",
                ),
            )
            frames.send(None)
        self._frames.send(np.ascontiguousarray(frame[:height, :width]))

    def close(self) -> None:
        """Finish the file."""
        if self._frames is not None:
            self._frames.close()


def _encoder() -> Any:
    try:
        return importlib.import_module("imageio_ffmpeg")
    except ImportError as error:
        raise SlipstreamError(
            "videos need the package imageio-ffmpeg, which is not installed; install it with: "
            "pip install 'slipstream-rl[video]'"
        ) from error


@contextmanager
def _disk(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SlipstreamError(
            f"could not write {path}: {' '.join(str(error).split())[:300]}"
        ) from error


@contextmanager
def _generators_kept() -> Iterator[None]:
    """Give back the process's random generators as they were: a simulator may draw from them."""
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])
