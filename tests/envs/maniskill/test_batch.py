"""ManiSkill simulated as one batch: here on the CPU with one environment, by the same code."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from slipstream.config import EvalConfig
from slipstream.envs.making import make_env
from slipstream.envs.maniskill import batch as maniskill_batch
from slipstream.envs.maniskill.batch import ManiSkillBatch, sim_backend
from slipstream.envs.observation import ObservationConfig
from slipstream.envs.setup import EnvConfig, open_env, open_filmed
from slipstream.errors import SlipstreamError
from slipstream.policies.policy import load_policy
from slipstream.training import branch, train
from tests.tiny_runs import lines, tiny

TASK = "PullCube-v1"


@pytest.fixture
def batched(monkeypatch, pull_cube) -> str:
    """What to ask for as `env.physics` to have the batch, but simulated on the CPU."""
    monkeypatch.setattr(maniskill_batch, "sim_backend", lambda physics: "physx_cpu")
    return "cuda"


def actions(num: int, size: int = 8) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (num, 1, size)).astype(np.float32)


def check_equal(obs: dict[str, Any], expected: dict[str, np.ndarray]) -> None:
    assert {key: tuple(value.shape) for key, value in obs.items()} == {
        key: value.shape for key, value in expected.items()
    }
    for key, value in obs.items():
        assert isinstance(value, torch.Tensor)
        assert np.array_equal(value.numpy(), expected[key]), key


@pytest.mark.parametrize(
    "config",
    [
        EnvConfig(max_episode_steps=4),
        EnvConfig(max_episode_steps=4, obs="rgb+depth", image_size=16),
        EnvConfig(max_episode_steps=4, obs="rgb", image_size=16, blind=True),
        EnvConfig(max_episode_steps=4, observe=ObservationConfig("3-5,0"), prev_action=True),
        EnvConfig(
            max_episode_steps=4,
            obs="rgb+state",
            image_size=16,
            observe=ObservationConfig("2-9"),
            prev_reward=True,
        ),
    ],
    ids=["state", "rgb+depth", "blind", "mask", "mask_of_rgb+state"],
)
def test_it_equals_single_environments(batched, config):
    privileged = config.obs != "state" or config.observe.hides
    evaluation = "depth" in config.parts
    single = open_env(TASK, config, 1, privileged=privileged, evaluation=evaluation)
    batch = open_env(
        TASK, replace(config, physics=batched), 1, privileged=privileged, evaluation=evaluation
    )
    assert batch.spec == single.spec == batch.spec_rendered
    check_equal(batch.reset([7]), single.reset([7]))
    found = None
    for action in actions(4):
        found, expected = batch.step(torch.as_tensor(action)), single.step(action)
        check_equal(found.next_obs, expected.next_obs)
        for name in ("reward", "terminated", "truncated", "started", "acted"):
            assert np.array_equal(getattr(found, name), getattr(expected, name)), name
        assert found.episodes == expected.episodes
    assert found is not None and found.truncated.all()
    assert batch.step(actions(1)[0]).episodes == ()
    batch.close()
    single.close()


def test_seeds_make_episodes_and_others_differ(batched):
    env = open_env(TASK, EnvConfig(physics=batched), 1)
    first = env.reset(3)["state"]
    assert torch.equal(env.reset([3])["state"], first)
    assert not torch.equal(env.reset(4)["state"], first)
    torch.manual_seed(0)
    drawn = env.reset()["state"]
    assert not torch.equal(env.reset()["state"], drawn)
    torch.manual_seed(0)
    assert torch.equal(env.reset()["state"], drawn)
    env.close()


@pytest.mark.parametrize(("evaluation", "partial"), [(False, True), (True, True), (False, False)])
def test_success_cuts_a_training_episode_and_failure_ends_it(
    batched, monkeypatch, evaluation, partial
):
    config = EnvConfig(physics=batched, partial_reset=partial)
    env = open_env(TASK, config, 1, evaluation=evaluation)
    batch = env._vector_env
    assert isinstance(batch, ManiSkillBatch)
    said = {"success": torch.tensor([False]), "fail": torch.tensor([False])}
    copied = lambda: {key: flag.clone() for key, flag in said.items()}  # noqa: E731
    monkeypatch.setattr(batch.base, "evaluate", copied)
    env.reset(0)
    outcomes, told = [], []
    for success, fail in [(False, False), (True, False), (False, True), (True, True)]:
        said["success"][0], said["fail"][0] = success, fail
        result = env.step(np.zeros((1, 8)))
        outcomes.append((bool(result.terminated[0]), bool(result.truncated[0])))
        told += [episode.success for episode in result.episodes]
    if evaluation or not partial:
        assert outcomes == [(False, False)] * 4
    else:
        assert outcomes == [(False, False), (False, True), (True, False), (True, False)]
        assert told == [True, False, True]
    env.close()


def test_images_are_not_rendered_for_who_does_not_look(batched):
    env = open_env(TASK, EnvConfig(physics=batched, obs="rgb", image_size=16), 1)
    env.show_images(False)
    assert not env.reset(0)["rgb"].any()
    env.show_images(True)
    assert env.reset(0)["rgb"].any()
    env.close()


def test_its_first_episode_is_filmed_to_the_end(batched):
    frames = []
    config = EnvConfig(physics=batched, max_episode_steps=3)
    env = open_filmed(TASK, config, lambda frame, fps: frames.append((frame.shape, fps)), 32)
    env.reset([0])
    for action in actions(5):
        env.step(action)
    assert frames == [((32, 32, 3), 20.0)] * 4  # what follows the first episode is not shown
    env.close()


@pytest.mark.parametrize("obs", ["state", "rgb+state"])
def test_both_stages_train_and_resume_with_new_episodes(batched, obs, tmp_path):
    run_dir = tmp_path / "run"
    config = tiny(
        env_id=TASK,
        total_steps=80,
        env=EnvConfig(max_episode_steps=6, obs=obs, image_size=32, physics=batched),
        eval=EvalConfig(every=40, episodes=1),
        checkpoint_every=60,
        privileged=() if obs == "state" else ("accelerator", "critic"),
    )
    train(config, run_dir, show_progress=False)
    found = lines(run_dir)
    assert [line["step"] for line in found if line.get("event") == "switch"] == [40]
    assert any("eval/transformer/return" in line and line["step"] == 80 for line in found)
    returns = [line["rollout/episode_return"] for line in found if "rollout/episode_return" in line]
    assert len(returns) >= 12
    assert np.isfinite(returns).all()
    assert load_policy(run_dir).env == replace(config.env, physics="cpu")  # for where no GPU is
    if obs == "state":
        again = branch(run_dir / "checkpoints" / "60", config, tmp_path / "again", False)
        told = [line["reason"] for line in lines(again) if line.get("event") == "branch"]
        assert "with a new episode" in told[0]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"physics": "gpu"}, "env.physics is 'gpu'; use cpu, cuda or cuda:1"),
        ({"physics": "cuda", "parallel": True}, "env.parallel is on, but env.physics cuda"),
        (
            {"physics": "cuda", "observe": ObservationConfig(noise=0.1)},
            "noise, drop and delay are not made on a GPU, but env.physics is cuda",
        ),
    ],
)
def test_what_does_not_go_together_is_told(fields, message):
    with pytest.raises(SlipstreamError, match=message):
        EnvConfig(**fields)


def test_other_environments_are_not_simulated_on_a_gpu():
    with pytest.raises(SlipstreamError, match=r"env.physics is cuda, but Pendulum-v1 is no Mani"):
        open_env("Pendulum-v1", EnvConfig(physics="cuda"), 1)


def test_its_names_for_devices():
    assert [sim_backend(device) for device in ("cuda", "cuda:1")] == ["physx_cuda", "physx_cuda:1"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_remedy_is_named():
    with pytest.raises(SlipstreamError, match=r"torch finds no CUDA device; use --env.physics cpu"):
        open_env(TASK, EnvConfig(physics="cuda"), 1)


def test_a_library_that_cannot_be_loaded_is_told(monkeypatch):
    class PhysX:
        @staticmethod
        def enable_gpu():
            raise OSError("libcuda.so: cannot open\nshared object file")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(maniskill_batch.importlib, "import_module", lambda name: PhysX)
    with pytest.raises(
        SlipstreamError,
        match=r"cannot be loaded \(libcuda.so: cannot open shared object file\); use",
    ):
        ManiSkillBatch(TASK, 2, "physx_cuda")


def test_new_scenes_are_refused_where_they_would_end_the_episodes_of_all():
    with pytest.raises(SlipstreamError, match="reconfiguration_freq 1, but a new scene would end"):
        ManiSkillBatch(TASK, 2, "physx_cuda", {"reconfiguration_freq": 1})


@pytest.mark.usefixtures("pull_cube")
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_many_environments_stay_on_the_gpu():
    env = make_env(ManiSkillBatch(TASK, 16, "physx_cuda", {"max_episode_steps": 4}))
    assert env.reset(0)["state"].is_cuda
    for _ in range(6):
        result = env.step(torch.zeros(16, 8, device="cuda"))
        assert result.next_obs["state"].is_cuda
    env.close()
