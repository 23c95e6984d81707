"""The report shows the newest episode of each actor, and stays small."""

import json
import sys
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from slipstream.report import films
from slipstream.report.films import films_of
from slipstream.report.html import write_report
from slipstream.report.runs import load_run
from tests.report.sample_runs import config_of, sample_lines, sample_runs, write_folder
from tests.report.test_report_html import Links, browse, needs_chromium

imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
RED, BLUE, GREY = (213, 40, 0), (0, 60, 200), (120, 120, 120)


def write_video(folder, name, frames, fps=20, **known):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.mp4"
    height, width = frames[0].shape[:2]
    video = imageio_ffmpeg.write_frames(str(path), (width, height), fps=fps, macro_block_size=2)
    video.send(None)
    for frame in frames:
        video.send(np.ascontiguousarray(frame))
    video.close()
    if known:
        path.with_suffix(".json").write_text(json.dumps(known))
    return path


def painted(colour, num_frames=40, size=64):
    """A bar of a colour that grows from nothing to the whole width."""
    frames = np.full((num_frames, size, size, 3), 255, np.uint8)
    for i, frame in enumerate(frames):
        frame[:, : round(size * i / (num_frames - 1))] = colour
    return frames


def known(actor, step, **more):
    return {"actor": actor, "step": step, "episode_return": 4321.0, "success_once": None, **more}


@pytest.fixture(scope="module")
def filmed(tmp_path_factory):
    """Three seeds, of which the second has videos."""
    folder = tmp_path_factory.mktemp("films")
    runs = sample_runs(folder / "runs")
    videos = runs[1] / "videos"
    write_video(videos, "a", painted(RED), **known("accelerator", 30_000))
    write_video(videos, "b", painted(GREY), **known("transformer", 30_000))
    write_video(videos, "c", painted(BLUE), **known("transformer", 60_000, success_once=True))
    write_video(videos, "d", painted(GREY))  # nothing is known of it: unfinished, or not ours
    return runs, write_report(runs, folder / "out")


def colours_at_the_end(content):
    """Near the end of the last frame's bar, as decoded."""
    with Image.open(BytesIO(content)) as image:
        image.seek(getattr(image, "n_frames", 1) - 1)
        pixels = np.asarray(image.convert("RGB")).astype(int)
    return pixels[pixels.shape[0] // 2, -16:-8].mean(0)


def test_the_newest_video_of_each_actor_is_shown(filmed):
    runs, _ = filmed
    found, problems = films_of([load_run(path) for path in runs])
    assert problems == []
    assert [film.actor for film in found] == ["accelerator", "transformer"]
    for film, colour in zip(found, (RED, BLUE), strict=True):
        assert np.abs(colours_at_the_end(film.moving) - colour).max() < 40
        assert np.abs(colours_at_the_end(film.strip) - colour).max() < 40
    assert "Transformer at step 60,000, seed 1, return of this episode 4,321, success" in (
        found[1].caption
    )
    assert "videos/c.mp4" in found[1].caption


def test_what_moves_moves_and_the_strip_goes_through_all_of_it(filmed):
    (film, _), _ = films_of([load_run(path) for path in filmed[0]])
    with Image.open(BytesIO(film.moving)) as image:
        assert image.format == "WEBP"
        assert getattr(image, "n_frames", 1) == 20  # 40 frames at 20 a second, shown at 10
        image.load()
        assert image.info["duration"] == 100
    with Image.open(BytesIO(film.strip)) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    red = [
        (np.abs(still - np.array(RED)).max(-1) < 60).mean()
        for still in (pixels[:, i * 68 : i * 68 + 64] for i in range(6))
    ]
    assert np.allclose(red, np.linspace(0, 1, 6), atol=0.06)


def test_the_page_holds_them_side_by_side_and_fetches_nothing(filmed):
    text = filmed[1].read_text()
    assert all(link.startswith("data:") for link in Links(text).found)
    assert text.count("data:image/webp;base64,") == 4
    assert text.index("Accelerator at step 30,000") < text.index("Transformer at step 60,000")
    names = {path.name for path in (filmed[1].parent / "figures").glob("film-*.webp")}
    assert names == {
        f"film-{actor}{kind}.webp"
        for actor in ("accelerator", "transformer")
        for kind in ("", "-strip")
    }


@needs_chromium
def test_a_browser_draws_them(filmed, tmp_path):
    screenshot = tmp_path / "page.png"
    browse(tmp_path, filmed[1], f"--screenshot={screenshot}")
    with Image.open(screenshot) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    for colour in (RED, BLUE):
        assert (np.abs(pixels - np.array(colour)).max(axis=2) < 30).sum() > 2000


def test_even_noise_is_made_small_enough(tmp_path, monkeypatch):
    assert len(films.ACTORS) * (films.MOVING_BYTES + films.STRIP_BYTES) * 4 / 3 <= 1_000_000
    monkeypatch.setattr(films, "MOVING_BYTES", 30_000)
    monkeypatch.setattr(films, "STRIP_BYTES", 30_000)
    noise = np.random.default_rng(0).integers(0, 256, (20, 128, 128, 3)).astype(np.uint8)
    run = write_folder(tmp_path / "run", config_of(0), sample_lines(0))
    write_video(run / "videos", "x", noise, **known("transformer", 1))
    (film,), _ = films_of([load_run(run)])
    assert len(film.moving) <= 30_000
    assert len(film.strip) <= 30_000
    assert film.size[0] < 128


def test_a_broken_video_is_told_of_in_a_line(tmp_path):
    run = write_folder(tmp_path / "run", config_of(0), sample_lines(0))
    path = write_video(run / "videos", "x", painted(RED), **known("transformer", 1))
    path.write_bytes(path.read_bytes()[:100])
    found, problems = films_of([load_run(run)])
    assert found == []
    assert len(problems) == 1 and "x.mp4 cannot be read" in problems[0]
    assert "x.mp4 cannot be read" in write_report([run], tmp_path / "page.html").read_text()


def test_without_the_decoder_the_page_says_how_to_get_it(filmed, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    text = write_report(filmed[0], tmp_path / "page.html").read_text()
    assert "pip install &#39;slipstream-rl[video]&#39;" in text
    assert "data:image/webp" not in text


def test_videos_make_no_other_method_of_a_seed(tmp_path):
    runs = [
        write_folder(tmp_path / str(seed), config_of(seed, video={"enabled": bool(seed)}), lines)
        for seed, lines in enumerate((sample_lines(0), sample_lines(1)))
    ]
    assert write_report(runs, tmp_path / "page.html").read_text().count('<section id="group-') == 1
