"""ManiSkill tasks are plain environments whose episodes can be replayed and seen."""

import builtins
import importlib
import importlib.util
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from slipstream.cli import main
from slipstream.config import EvalConfig
from slipstream.envs.maniskill import making, tasks
from slipstream.envs.maniskill.single import ManiSkillCameras, ManiSkillEnv
from slipstream.envs.maniskill.tasks import is_maniskill
from slipstream.envs.maniskill.views import shown_depth
from slipstream.envs.observation import ObservationConfig
from slipstream.envs.pixels import render_state, sim_state
from slipstream.envs.setup import EnvConfig, open_env, open_filmed, open_single
from slipstream.envs.vec_env import VecEnv
from slipstream.errors import SlipstreamError
from slipstream.training import train
from tests.envs.test_resume import check_exact
from tests.stages.test_frames import check_rendered_later
from tests.tiny_runs import in_child, lines, tiny


def actions(num: int, size: int = 8) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (num, size)).astype(np.float32)


def test_its_ids_are_known_without_it():
    assert is_maniskill("PushCube-v1")
    assert is_maniskill("mani_skill.envs:MS-HopperStand-v1")
    assert not is_maniskill("Pusher-v5")
    assert not is_maniskill("Hopper-v5")


def test_without_it_the_command_that_installs_it_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SlipstreamError, match=r"PushCube-v1 is a ManiSkill task.*setup-maniskill"):
        open_env("PushCube-v1", EnvConfig(), 1)


@pytest.mark.usefixtures("pull_cube")
def test_all_of_its_ids_are_known():
    registered: Any = importlib.import_module("mani_skill.utils.registration").REGISTERED_ENVS
    assert {f"{name}-v1" for name in tasks._NAMES} == set(registered)


def test_it_is_a_plain_environment(pull_cube):
    obs, _ = pull_cube.reset(seed=1)
    assert obs.shape == (35,) and obs.dtype == np.float32
    assert obs in pull_cube.observation_space
    assert (pull_cube.action_space.low == -1).all() and pull_cube.action_space.shape == (8,)
    assert pull_cube.base.control_mode == "pd_joint_delta_pos"
    assert pull_cube.spec is not None
    assert (pull_cube.spec.id, pull_cube.spec.max_episode_steps) == ("PullCube-v1", 50)
    following, reward, terminated, truncated, info = pull_cube.step(np.ones(8, np.float32))
    assert 0 < reward < 1 and type(reward) is float
    assert not terminated and not truncated and not info["success"]
    assert not np.array_equal(following, obs)
    assert pull_cube.render().shape == (320, 320, 3)


def test_episodes_follow_from_their_seeds(pull_cube):
    def first(seed: int | None) -> bytes:
        return pull_cube.reset(seed=seed)[0].tobytes()

    a = [first(3), first(None), first(None)]
    b = [first(3), first(None), first(None)]
    assert a == b
    assert len(set(a)) == 3


@pytest.mark.parametrize(
    ("env_id", "limit", "steps"), [("PushCube-v1", 20, 30), ("MS-HopperStand-v1", 12, 16)]
)
@pytest.mark.usefixtures("pull_cube")
def test_a_saved_episode_goes_on_bit_for_bit(env_id, limit, steps):
    def make() -> VecEnv:
        return open_env(env_id, EnvConfig(max_episode_steps=limit), 1)

    assert min(check_exact(make, steps, steps)) >= 1


def succeeding_at(env: ManiSkillEnv, *steps: int) -> None:
    """Have the task report success at these steps."""
    torch: Any = importlib.import_module("torch")

    def evaluate() -> dict[str, Any]:
        return {"success": torch.tensor([int(env.base.elapsed_steps[0]) in steps])}

    env.base.evaluate = evaluate


@pytest.mark.usefixtures("pull_cube")
def test_success_cuts_a_training_episode_and_failure_ends_it():
    env = ManiSkillEnv("PullCube-v1")
    succeeding_at(env, 2)
    env.reset(seed=0)
    assert env.step(np.zeros(8, np.float32))[2:4] == (False, False)
    *_, terminated, truncated, info = env.step(np.zeros(8, np.float32))
    assert (terminated, truncated, bool(info["success"])) == (False, True, True)
    torch: Any = importlib.import_module("torch")
    no, yes = torch.tensor([False]), torch.tensor([True])
    env.base.evaluate = lambda: {"success": no, "fail": yes}
    env.reset(seed=0)
    assert env.step(np.zeros(8, np.float32))[2:4] == (True, False)


@pytest.mark.usefixtures("pull_cube")
def test_without_partial_reset_a_training_episode_runs_to_the_time_limit():
    env = open_env("PullCube-v1", EnvConfig(partial_reset=False, max_episode_steps=4), 1)
    inner: Any = env._vector_env
    succeeding_at(inner.envs[0].unwrapped, 2)
    env.reset(0)
    results = [env.step(np.zeros((1, 8))) for _ in range(4)]
    assert [bool(result.truncated[0]) for result in results] == [False, False, False, True]
    assert not any(result.terminated.any() for result in results)
    (episode,) = results[-1].episodes
    assert (episode.success, episode.success_at_end) == (True, False)
    env.close()


@pytest.mark.usefixtures("pull_cube")
def test_evaluation_runs_on_and_tells_success_once_and_at_the_end():
    envs: list[ManiSkillEnv] = []

    def record(at: tuple[int, ...]) -> tuple[bool | None, bool | None, int]:
        env = open_env("PullCube-v1", EnvConfig(max_episode_steps=4), 1, evaluation=True)
        inner: Any = env._vector_env
        envs.append(inner.envs[0].unwrapped)
        succeeding_at(envs[-1], *at)
        env.reset(0)
        results = [env.step(np.zeros((1, 8))) for _ in range(4)]
        assert not any(result.terminated.any() for result in results)
        (episode,) = results[-1].episodes
        return episode.success, episode.success_at_end, episode.length

    assert record((2,)) == (True, False, 4)
    assert record((2, 4)) == (True, True, 4)
    assert record(()) == (False, False, 4)
    # A new scene for every episode.
    scene = envs[0].base.scene
    envs[0].reset()
    assert envs[0].base.scene is not scene


def test_beside_images_the_robot_knows_itself_and_no_more(pull_cube):
    config = EnvConfig(obs="rgb+state")
    env = open_single("PullCube-v1", config, privileged=True)
    obs, _ = env.reset(seed=4)
    assert {key: (value.shape, value.dtype.name) for key, value in obs.items()} == {
        "rgb": ((64, 64, 3), "uint8"),
        "state": ((25,), "float32"),  # 9 positions, 9 velocities, the tool's pose
        "privileged": ((35,), "float32"),
    }
    assert obs in env.observation_space
    assert np.array_equal(obs["privileged"], pull_cube.reset(seed=4)[0])
    assert np.array_equal(obs["state"], obs["privileged"][:25])
    assert obs["rgb"].std() > 10
    # PickCube's goal is seen by nobody, and must be told; where the cube is must not.
    shown = ManiSkillEnv("PickCube-v1").proprioception
    assert len(shown) == 9 + 9 + 1 + 7 + 3
    # A mask counts among the components that are shown.
    masked = EnvConfig(obs="rgb+state", observe=ObservationConfig("0-8"))
    seen, _ = open_single("PullCube-v1", masked).reset(seed=4)
    assert np.array_equal(seen["state"], obs["state"][:9])


@pytest.mark.usefixtures("pull_cube")
def test_a_stored_state_gives_the_very_same_pixels():
    env = open_single("PullCube-v1", EnvConfig(obs="rgb+depth"))
    frames, states = [env.reset(seed=0)[0]], [sim_state(env)]
    for action in actions(20):
        frames.append(env.step(action)[0])
        states.append(sim_state(env))
    assert len({frame["rgb"].tobytes() for frame in frames}) > 15
    other = open_single("PullCube-v1", EnvConfig(obs="rgb+depth"))
    for i in np.random.default_rng(1).permutation(len(frames)):
        again = render_state(other, states[i])
        assert np.array_equal(again["rgb"], frames[i]["rgb"])
        assert np.array_equal(again["depth"], frames[i]["depth"])
    with pytest.raises(RuntimeError, match="reset before the next step"):
        other.step(actions(1)[0])
    other.reset()
    other.step(actions(1)[0])


@pytest.mark.usefixtures("pull_cube")
def test_stored_states_come_with_the_states_of_all_roles():
    config = EnvConfig(obs="rgb+state", max_episode_steps=3)
    env = open_env("PullCube-v1", config, 1, privileged=True, on_demand=True)
    assert {key: value.dtype for key, value in env.spec.obs.items()} == {
        "state": "float32",
        "privileged": "float32",
        "sim_state": "float64",
    }
    env.reset(0)
    results = [env.step(action[None]) for action in actions(3)]
    renderer = open_single("PullCube-v1", config)
    image = render_state(renderer, results[-1].next_obs["sim_state"][0])["rgb"]
    first = render_state(renderer, results[-1].obs["sim_state"][0])["rgb"]
    assert not np.array_equal(image, first)


@pytest.mark.usefixtures("pull_cube")
@pytest.mark.parametrize("env_id", ["PullCube-v1", "PushCube-v1", "MS-HopperStand-v1"])
def test_rows_rendered_later_are_those_rendered_while_stepping(env_id):
    check_rendered_later(env_id)


def test_several_cameras_lie_side_by_side(pull_cube):
    config = {"obs": "rgb+depth", "kwargs": {"robot_uids": "panda_wristcam"}, "image_size": 32}
    both, _ = open_single("PickCube-v1", EnvConfig(**config)).reset(seed=0)
    assert {key: value.shape for key, value in both.items()} == {
        "rgb": (32, 32, 6),
        "depth": (32, 32, 2),
    }
    one, _ = open_single("PickCube-v1", EnvConfig(**config, camera="hand_camera")).reset(seed=0)
    assert np.array_equal(one["rgb"], both["rgb"][..., 3:])
    assert np.array_equal(one["depth"], both["depth"][..., 1:])
    with pytest.raises(SlipstreamError, match="no camera 'side': choose of base_camera"):
        ManiSkillCameras(pull_cube, camera="side")


def test_depth_keeps_what_is_near_apart():
    millimetres = torch.tensor([0, 100, 500, 510, 1000, 1020, 32767], dtype=torch.int16)
    shown = shown_depth(millimetres)
    assert shown.dtype == torch.uint8
    assert shown.tolist() == [0, 23, 85, 86, 128, 129, 247]


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"control_mode": "telepathy"}, "no control mode 'telepathy': choose one of pd_joint_"),
        (
            {"sim_backend": "physx_cuda"},
            "made with sim_backend 'physx_cuda'.*--env.physics cuda",
        ),
        ({"colour": "red"}, "cannot be made with.*unexpected keyword argument 'colour'"),
    ],
)
@pytest.mark.usefixtures("pull_cube")
def test_arguments_that_do_not_fit_are_told(kwargs, message):
    with pytest.raises(SlipstreamError, match=message):
        ManiSkillEnv("PushCube-v1", kwargs)


@pytest.mark.usefixtures("pull_cube")
def test_a_robot_without_the_usual_control_takes_its_own(monkeypatch):
    monkeypatch.setattr(making, "_CONTROL_MODE", "by_thought")
    env = ManiSkillEnv("PullCube-v1")
    assert env.base.control_mode == env.base.agent.supported_control_modes[0]


@pytest.mark.usefixtures("pull_cube")
def test_files_that_are_missing_are_told_with_the_command_and_never_asked_for(
    monkeypatch, tmp_path
):
    assets: Any = importlib.import_module("mani_skill.utils.assets")
    monkeypatch.setattr(builtins, "input", lambda *_: pytest.fail("asked on the terminal"))
    monkeypatch.setattr(assets.DATA_SOURCES["ycb"], "output_dir", tmp_path)
    command = "python -m mani_skill.utils.download_asset ycb$"
    with pytest.raises(SlipstreamError, match=f"PickSingleYCB-v1 needs files.*{command}"):
        ManiSkillEnv("PickSingleYCB-v1")
    # What a download that failed leaves behind.
    (tmp_path / assets.DATA_SOURCES["ycb"].target_path).mkdir(parents=True)
    with pytest.raises(SlipstreamError, match=command):
        ManiSkillEnv("PickSingleYCB-v1")


@pytest.mark.usefixtures("pull_cube")
@pytest.mark.parametrize(
    ("name", "groups"),
    [
        ("PickCubeWidowXAI-v1", ["widowxai"]),
        ("ArchitecTHOR_SceneManipulation-v1", ["AI2THOR"]),
        ("ReplicaCAD_SceneManipulation-v1", ["ReplicaCAD"]),
        ("SceneManipulation-v1", ["ReplicaCAD"]),
        ("ReplicaCADTidyHouseVal_SceneManipulation-v1", ["ReplicaCAD", "ReplicaCADRearrange"]),
        ("PutEggplantInBasketScene-v1", ["bridge_v2_real2sim", "widowx250s"]),
        ("StackGreenCubeOnYellowCubeBakedTexInScene-v1", ["bridge_v2_real2sim", "widowx250s"]),
    ],
)
def test_what_maniskill_does_not_say_is_known_before_the_task_is_made(
    monkeypatch, tmp_path, name, groups
):
    assets: Any = importlib.import_module("mani_skill.utils.assets")
    for group in groups:
        monkeypatch.setattr(assets.DATA_SOURCES[group], "output_dir", tmp_path)
    monkeypatch.setattr(making.gym, "make", lambda *_, **__: pytest.fail("it was made"))
    commands = " && ".join(f"python -m mani_skill.utils.download_asset {g}" for g in groups)
    with pytest.raises(SlipstreamError, match=rf"^{name} needs files.*: {commands}$"):
        ManiSkillEnv(name)


def train_without_vulkan(nowhere: Path) -> int:
    for name in ("VK_DRIVER_FILES", "VK_ICD_FILENAMES"):
        os.environ[name] = str(nowhere)
    return main(["train", "PushCube-v1", "--dry-run"])


@pytest.mark.skipif(importlib.util.find_spec("mani_skill") is None, reason="needs ManiSkill")
def test_without_a_vulkan_device_the_command_that_installs_one_is_named(tmp_path):
    status, _, err = in_child(tmp_path, train_without_vulkan, tmp_path / "none.json")
    assert status == 2
    (line,) = [line for line in err.splitlines() if line.startswith("slipstream: ")]
    assert "PushCube-v1 needs a Vulkan device" in line
    assert "scripts/install-system-packages maniskill" in line


@pytest.mark.parametrize("obs", ["state", "rgb"])
@pytest.mark.usefixtures("pull_cube")
def test_both_stages_train(obs, tmp_path):
    env = EnvConfig(obs=obs, image_size=32, max_episode_steps=6)
    train(
        tiny(env_id="PullCube-v1", env=env, total_steps=80, eval=EvalConfig(every=40, episodes=1)),
        tmp_path,
        show_progress=False,
    )
    ended = lines(tmp_path)[-1]
    assert (ended["step"], ended["stage"], ended["event"]) == (80, "online", "end")
    last = [line for line in lines(tmp_path) if "eval/transformer/return" in line][-1]
    assert last["eval/transformer/length"] == 6
    assert last["eval/transformer/success_once"] == last["eval/transformer/success_at_end"] == 0


@pytest.mark.usefixtures("pull_cube")
def test_a_person_sees_the_robot_at_work_and_disturbs_nothing():
    shown = []
    config = EnvConfig(max_episode_steps=6)
    filmed = open_filmed("PullCube-v1", config, lambda *frame: shown.append(frame), 96)
    plain = open_env("PullCube-v1", config, 1, evaluation=True)
    assert np.array_equal(plain.reset(3)["state"], filmed.reset(3)["state"])
    for action in actions(6, plain.spec.action_dim):
        one, other = plain.step(action[None]), filmed.step(action[None])
        assert np.array_equal(one.next_obs["state"], other.next_obs["state"])
    frames = np.stack([frame for frame, _ in shown]).astype(int)
    assert frames.shape == (7, 96, 96, 3)
    assert {fps for _, fps in shown} == {20.0}
    # The arm moves over many pixels; what stands still does not.
    moved = np.abs(frames[-1] - frames[0]).max(-1) > 30
    assert 0.01 < moved.mean() < 0.5
    filmed.close()
    plain.close()
