"""Videos of evaluation episodes: what they show, when, and that nothing else moves."""

import json
import random
import shutil
import sys
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch

from slipstream.cli import main
from slipstream.config import EvalConfig
from slipstream.envs.film import VideoConfig
from slipstream.errors import SlipstreamError
from slipstream.training import resume, train
from tests.tiny_runs import lines, tiny
from tests.training.test_resume import differences, state_of

imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
PATH = "tests.judging.test_videos"
TOTAL = {"total_steps": 120, "keep_checkpoints": 9, "checkpoint_every": 40, "learning_starts": 20}


class Painted(gym.Env):
    """A bar as long as the number of steps, and steps that draw from everybody's generators."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012
    observation_space = gym.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, render_mode: str | None = None):
        self.render_mode = render_mode
        self.t = 0

    def _obs(self):
        return self.np_random.uniform(-1, 1, 2).astype(np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self._obs(), {}

    def step(self, action):
        self.t += 1
        return self._obs(), float(-abs(action[0])), False, self.t == 12, {"success": self.t > 6}

    def render(self):
        if self.render_mode is None:
            return None
        for draw in (torch.rand, np.random.rand):  # as a careless simulator does
            draw(1)
        random.random()
        picture = np.zeros((48, 65, 3), np.uint8)
        picture[:, : 5 * self.t, 0] = 255
        return picture


def config_of(**video):
    return tiny(env_id=f"{PATH}:Painted", **TOTAL, video=VideoConfig(**video))


def read(path):
    stream = imageio_ffmpeg.read_frames(str(path))
    told = next(stream)
    width, height = told["size"]
    return told, np.stack([np.frombuffer(f, np.uint8).reshape(height, width, 3) for f in stream])


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The same run without and with videos."""
    folder = tmp_path_factory.mktemp("videos")
    train(config_of(), folder / "plain", show_progress=False)
    train(config_of(enabled=True), folder / "filmed", show_progress=False)
    return folder / "plain", folder / "filmed"


def test_the_run_is_the_same_bit_for_bit(runs):
    plain, filmed = map(state_of, runs)
    assert plain["rng"].tolist() == filmed["rng"].tolist()
    assert differences(plain, filmed) == []


def test_both_actors_at_the_switch_and_the_transformer_at_the_end(runs):
    plain, filmed = runs
    assert not (plain / "videos").exists()
    names = sorted(path.stem for path in (filmed / "videos").glob("*.mp4"))
    assert names == [
        "step120_transformer_seed1000000",
        "step60_accelerator_seed1000000",
        "step60_transformer_seed1000000",
    ]
    assert sorted(p.stem for p in (filmed / "videos").glob("*.json")) == names
    assert len(list((filmed / "videos").iterdir())) == 6  # nothing half-written


def test_the_video_is_of_the_evaluated_episode(runs):
    known = json.loads((runs[1] / "videos/step120_transformer_seed1000000.json").read_text())
    evaluated = [line for line in lines(runs[1]) if "eval/transformer/returns" in line][-1]
    assert known["episode_return"] == pytest.approx(evaluated["eval/transformer/returns"][0])
    assert {name: known[name] for name in ("actor", "step", "when", "length", "success_once")} == {
        "actor": "transformer",
        "step": 120,
        "when": ["end"],
        "length": 12,
        "success_once": True,
    }


def test_the_video_shows_every_state_once(runs):
    told, frames = read(runs[1] / "videos/step60_accelerator_seed1000000.mp4")
    assert told["fps"] == 10
    assert frames.shape == (13, 48, 64, 3)  # a video has no odd column
    bars = (frames[:, 24, :, 0] > 128).sum(-1)
    assert np.abs(bars - 5 * np.arange(13)).max() <= 2  # not the next episode's first state


def test_every_moment_and_every_episode_that_is_asked_for(tmp_path):
    config = replace(
        config_of(enabled=True, when=("eval",), actors=("accelerator",), episodes=2),
        eval=EvalConfig(every=20, episodes=2),
    )
    train(config, tmp_path / "run", show_progress=False)
    names = {path.stem for path in (tmp_path / "run/videos").glob("*.mp4")}
    assert names == {
        f"step{step}_accelerator_seed{1_000_000 + k}" for step in (20, 40, 60) for k in (0, 1)
    }


def test_a_best_is_recorded_when_it_is_one(tmp_path):
    train(config_of(enabled=True, when=("best",)), tmp_path / "run", show_progress=False)
    recorded = {
        int(path.stem.split("_")[0].removeprefix("step"))
        for path in (tmp_path / "run/videos").glob("*_transformer_*.mp4")
    }
    best, expected = float("-inf"), set()
    for line in lines(tmp_path / "run"):
        found = line.get("eval/transformer/return", float("-inf"))
        if found > best:
            best, _ = found, expected.add(line["step"])
    assert recorded == expected - {0}


@pytest.mark.parametrize("step", [40, 80])
def test_a_resumed_run_with_videos_is_the_same(step, runs, tmp_path):
    run = shutil.copytree(runs[1], tmp_path / "run", symlinks=True)
    shutil.rmtree(run / "videos")
    resume(run / "checkpoints" / str(step), show_progress=False)
    assert differences(state_of(runs[1]), state_of(run)) == []
    recorded = {path.name for path in (run / "videos").iterdir()}
    before = {path.name for path in (runs[1] / "videos").iterdir()}
    assert recorded == {name for name in before if step < 60 or name.startswith("step120")}


def blind() -> gym.Env:
    """Cannot be rendered."""
    return Painted()


@pytest.mark.parametrize(
    ("missing", "said"),
    [("encoder", r"pip install 'slipstream-rl\[video\]'"), ("renderer", "render_mode='rgb_array'")],
)
def test_what_is_missing_is_told_before_anything_is_written(missing, said, tmp_path, monkeypatch):
    config = config_of(enabled=True)
    if missing == "encoder":
        monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    else:
        config = replace(config, env_id=f"{PATH}:blind")
    with pytest.raises(SlipstreamError, match=said):
        train(config, tmp_path / "run", show_progress=False)
    assert not (tmp_path / "run").exists()


def test_more_episodes_than_are_evaluated_are_refused():
    with pytest.raises(SlipstreamError, match=r"video\.episodes is 3, but an evaluation has 2"):
        config_of(enabled=True, episodes=3)


def test_a_video_that_fails_later_is_told_and_the_run_goes_on(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(imageio_ffmpeg, "write_frames", full)
    train(config_of(enabled=True), tmp_path / "run", show_progress=False)
    told = [line["reason"] for line in lines(tmp_path / "run") if line.get("event") == "no_video"]
    assert len(told) == 2
    assert all("No space left on device" in reason for reason in told)
    assert list((tmp_path / "run/videos").iterdir()) == []


def test_evaluate_records_what_it_is_asked_for(runs, tmp_path, capsys):
    run = str(runs[0])
    arguments = ["evaluate", run, "--episodes", "3", "--seed", "7"]
    films = ["--video-dir", str(tmp_path / "films"), "--video-episodes", "2"]
    assert main([*arguments, "--video", *films]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 5  # return, successes, two videos
    names = sorted(path.name for path in (tmp_path / "films").iterdir())
    assert names == [
        f"step120_transformer_seed{seed}.{kind}" for seed in (7, 8) for kind in ("json", "mp4")
    ]
    assert main([*arguments, "--video"]) == 0
    assert (runs[0] / "videos/step120_transformer_seed7.mp4").exists()
    assert main([*arguments, "--video", "--video-episodes", "4"]) == 2
    assert "--video-episodes is 4" in capsys.readouterr().err


def test_the_command_line_turns_videos_on(capsys):
    arguments = ["train", "Pendulum-v1", "--video", "--video.when", "best", "--print-config"]
    assert main(arguments) == 0
    assert "enabled: true\n  when:\n  - best\n" in capsys.readouterr().out
