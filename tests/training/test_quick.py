"""The preset `quick` on a ManiSkill task, from the command line to a video and a policy."""

import imageio.v3 as iio
import pytest

from slipstream.cli import main
from slipstream.policies.policy import load_policy
from tests.tiny_runs import events, lines


@pytest.mark.usefixtures("pull_cube")
def test_both_stages_leave_a_video_and_a_policy(tmp_path, capsys):
    run_dir = tmp_path / "run"
    shorter = (
        *("--total-steps", "160", "--learning-starts", "60", "--batch-size", "16"),
        *("--switch.latest", "0.7", "--cloning.burst", "3", "--cloning.own-episodes", "1"),
        *("--cloning.frames", "60", "--online.carry-rows", "60", "--eval.episodes", "1"),
        *("--eval.every", "1000", "--online.eval-every", "1000", "--env.image-size", "32"),
        *("--video.size", "64", "--checkpoint-every", "100000", "--no-tensorboard"),
        *("--matmul", "default"),
    )
    arguments = ["train", "PullCube-v1", "--preset", "quick", *shorter, "--run-dir", str(run_dir)]
    assert main(arguments) == 0
    assert "settings for ManiSkill's tasks: utd_ratio 0.25" in capsys.readouterr().out
    assert events(run_dir, "switch")
    assert {line["stage"] for line in lines(run_dir)} == {"accelerate", "online"}
    (video,) = (run_dir / "videos").glob("*_transformer_seed*.mp4")
    frames = iio.imread(video)
    assert len(frames) > 10 and frames[-1].std() > 5 and (frames[0] != frames[-1]).any()
    policy = load_policy(run_dir)
    assert list(policy.spec.obs) == ["rgb", "state"]
