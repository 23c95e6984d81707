"""Pictures of a run's videos: some seconds that move, and the whole episode as a strip."""

import importlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from slipstream.report.runs import Run
from slipstream.report.summary import number

ACTORS = ("accelerator", "transformer")
MOVING_SECONDS = 6.0
MOVING_FPS = 12.0
STRIP_FRAMES = 6
STRIP_HEIGHT = 120
MOVING_BYTES, STRIP_BYTES = 300_000, 60_000
"""For each actor; as text in the page it is a third more, so that two take less than 1 MB."""

# Height and quality of what moves, best first: the first that is small enough is taken.
_SETTINGS = ((256, 70), (256, 50), (224, 40), (192, 30), (160, 20), (128, 10), (96, 5), (64, 1))


@dataclass(frozen=True)
class Film:
    """What is shown of one video, in WebP.

    Attributes:
        actor: whose episode.
        moving: its first seconds, animated.
        strip: stills of the whole episode, from its first state to its last.
        size: width and height of `moving`.
        caption: what is to be seen.
    """

    actor: str
    moving: bytes
    strip: bytes
    size: tuple[int, int]
    caption: str


def films_of(runs: Sequence[Run]) -> tuple[list[Film], list[str]]:
    """The newest video of each actor, of the first run that has one.

    Returns:
        The films, and sentences on what could not be shown.
    """
    for run in runs:
        newest: dict[str, tuple[Path, dict[str, Any]]] = {}
        for path, known in _videos(run.path / "videos"):
            before = newest.get(known["actor"])
            if before is None or _age(known) > _age(before[1]):
                newest[known["actor"]] = path, known
        if newest:
            return _films(run, [newest[actor] for actor in ACTORS if actor in newest])
    return [], []


def _films(run: Run, videos: Sequence[tuple[Path, dict[str, Any]]]) -> tuple[list[Film], list[str]]:
    films: list[Film] = []
    problems: list[str] = []
    for path, known in videos:
        try:
            films.append(_film(path, known, run))
        except ImportError:
            where = path.parent.as_posix()
            missing = "pip install 'slipstream-rl[video]' to see them here"
            return [], [f"There are videos in {where}; {missing}."]
        except (OSError, RuntimeError, StopIteration, ValueError) as error:
            problems.append(f"{path.as_posix()} cannot be read: {str(error).splitlines()[0]}")
    return films, problems


def _videos(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Videos and what is known of them; one without that is unfinished, or somebody else's."""
    for path in sorted(folder.glob("*.mp4")):
        try:
            known = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(known, dict) and known.get("actor") in ACTORS:
            yield path, known


def _age(known: dict[str, Any]) -> int:
    step = known.get("step")
    return step if isinstance(step, int) else -1


def _film(path: Path, known: dict[str, Any], run: Run) -> Film:
    frames, fps, seconds = _read(path)
    moving, size = _moving(frames, fps)
    step = known.get("step")
    parts = [
        known["actor"].capitalize() + ("" if step is None else f" at step {step:,}"),
        f"seed {run.seed}",
    ]
    if isinstance(known.get("episode_return"), int | float):
        parts.append(f"return of this episode {number(known['episode_return'])}")
    if known.get("success_once") is not None:
        parts.append("success" if known["success_once"] else "no success")
    caption = ", ".join(parts) + (
        f". Above {min(seconds, MOVING_SECONDS):.1f} of its {seconds:.1f} seconds, below all of "
        f"it; the video is videos/{path.name}"
    )
    return Film(known["actor"], moving, _strip(frames), size, caption)


def _read(path: Path) -> tuple[np.ndarray, float, float]:
    """Frames (n, H, W, 3) uint8 of a video, how many a second, and its length in seconds."""
    ffmpeg: Any = importlib.import_module("imageio_ffmpeg")
    stream = ffmpeg.read_frames(str(path))
    told = next(stream)
    width, height = told["size"]
    frames = [np.frombuffer(frame, np.uint8).reshape(height, width, 3) for frame in stream]
    if not frames:
        raise ValueError("it has no frames")
    return np.stack(frames), float(told["fps"]), len(frames) / float(told["fps"])


def _moving(frames: np.ndarray, fps: float) -> tuple[bytes, tuple[int, int]]:
    every = max(1, round(fps / MOVING_FPS))
    chosen = frames[: max(1, round(MOVING_SECONDS * fps)) : every]
    content, size = b"", (0, 0)
    for height, quality in _SETTINGS:
        images = [_resized(frame, height) for frame in chosen]
        file = BytesIO()
        images[0].save(
            file,
            "WEBP",
            save_all=True,
            append_images=images[1:],
            duration=round(1000 * every / fps),
            loop=0,
            quality=quality,
            method=2,
        )
        content, size = file.getvalue(), images[0].size
        if len(content) <= MOVING_BYTES:
            break
    return content, size


def _strip(frames: np.ndarray) -> bytes:
    indices = np.linspace(0, len(frames) - 1, min(STRIP_FRAMES, len(frames))).round().astype(int)
    stills = [_resized(frames[i], STRIP_HEIGHT) for i in indices]
    gap = 4
    width = sum(still.width + gap for still in stills) - gap
    strip = Image.new("RGBA", (width, stills[0].height), (0, 0, 0, 0))
    left = 0
    for still in stills:
        strip.paste(still, (left, 0))
        left += still.width + gap
    content = b""
    for quality in (80, 60, 40, 20, 5):
        file = BytesIO()
        strip.save(file, "WEBP", quality=quality)
        content = file.getvalue()
        if len(content) <= STRIP_BYTES:
            break
    return content


def _resized(frame: np.ndarray, height: int) -> Image.Image:
    image = Image.fromarray(frame)
    height = min(height, image.height)
    return image.resize((round(image.width * height / image.height), height), Image.Resampling.BOX)
