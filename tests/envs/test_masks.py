"""A mask keeps what it says, checked against MuJoCo itself and against lists written by hand."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from slipstream.envs.masks import MaskObservation, mask_indices, parse_mask
from slipstream.errors import SlipstreamError

# What each mask keeps of every v5 task, read off the tables in gymnasium's documentation.
HALVES = {
    "Ant-v5": (range(13), range(13, 27)),
    "HalfCheetah-v5": (range(8), range(8, 17)),
    "Hopper-v5": (range(5), range(5, 11)),
    "Humanoid-v5": (range(22), range(22, 45)),
    "HumanoidStandup-v5": (range(22), range(22, 45)),
    "InvertedDoublePendulum-v5": (range(5), range(5, 8)),
    "InvertedPendulum-v5": (range(2), range(2, 4)),
    # Without the heights of object and goal (19, 22): they slide on a table.
    "Pusher-v5": ([0, 1, 2, 3, 4, 5, 6, 17, 18, 20, 21], range(7, 14)),
    "Reacher-v5": (range(6), range(6, 8)),
    "Swimmer-v5": (range(3), range(3, 8)),
    "Walker2d-v5": (range(8), range(8, 17)),
}


def make(env_id: str, **kwargs: Any) -> gym.Env[Any, Any]:
    return gym.make(env_id, disable_env_checker=True, **kwargs)


@pytest.mark.parametrize("env_id", HALVES)
def test_positions_follow_qpos_alone_and_velocities_qvel_alone(env_id):
    env = make(env_id)
    positions, velocities = mask_indices("positions", env), mask_indices("velocities", env)
    assert (positions, velocities) == tuple(tuple(half) for half in HALVES[env_id])
    # Any: MujocoEnv's own attributes.
    sim: Any = env.unwrapped
    env.reset(seed=0)
    rng = np.random.default_rng(0)

    def obs(qpos: np.ndarray, qvel: np.ndarray) -> np.ndarray:
        sim.set_state(qpos, qvel)
        return sim._get_obs()

    moved, sped = set(), set()
    for _ in range(5):
        # Half a unit: far from where Hopper and Walker2d clip velocities (10).
        qpos = sim.data.qpos + rng.uniform(-0.5, 0.5, sim.model.nq)
        qvel = sim.data.qvel + rng.uniform(-0.5, 0.5, sim.model.nv)
        before = obs(qpos, qvel)
        # A step away from zero, so that not one component stays by chance.
        by_qpos = obs(qpos + rng.uniform(0.1, 0.3, sim.model.nq), qvel) != before
        before = obs(qpos, qvel)
        by_qvel = obs(qpos, qvel + rng.uniform(0.1, 0.3, sim.model.nv)) != before
        moved |= set(np.flatnonzero(by_qpos).tolist())
        sped |= set(np.flatnonzero(by_qvel).tolist())
    assert not set(positions) - moved
    assert not set(positions) & sped
    assert not set(velocities) - sped
    assert not set(velocities) & moved


@pytest.mark.parametrize("env_id", HALVES)
def test_positions_are_of_one_moment(env_id):
    # MuJoCo computes the places of bodies one substep before qpos; shown beside qpos they would
    # tell the velocities. What is kept must not change when they are brought up to date. Of
    # Pusher's object only the place is shown, so that a late one tells nothing else.
    env = make(env_id)
    sim: Any = env.unwrapped
    obs, _ = env.reset(seed=0)
    env.action_space.seed(0)
    for _ in range(3):
        obs = env.step(env.action_space.sample())[0]
    sim.set_state(sim.data.qpos.copy(), sim.data.qvel.copy())
    kept = list(mask_indices("positions", env))
    if env_id == "Pusher-v5":
        kept = kept[:7]
    assert np.array_equal(obs[kept], sim._get_obs()[kept])


def test_all_positions_are_kept_where_none_is_left_out():
    kwargs = {"exclude_current_positions_from_observation": False}
    env = make("HalfCheetah-v5", **kwargs)
    assert mask_indices("positions", env) == tuple(range(9))
    assert mask_indices("velocities", env) == tuple(range(9, 18))
    assert mask_indices("positions", make("Ant-v5", **kwargs)) == tuple(range(15))


@pytest.mark.filterwarnings("ignore:.*out of date:DeprecationWarning")
@pytest.mark.parametrize("version", ["v4", "v5"])
def test_the_papers_masks(version):
    def kept(name: str) -> tuple[int, ...]:
        return mask_indices("paper", make(f"{name}-{version}"))

    assert kept("HalfCheetah") == (0, 1, 2, 3, 8, 9, 10, 11, 12)
    assert kept("Hopper") == (0, 1, 2, 3, 4)
    assert kept("Ant") == (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12)


def test_a_class_without_an_id_is_known_by_its_name_and_asked():
    from gymnasium.envs.mujoco.hopper_v5 import HopperEnv
    from gymnasium.envs.mujoco.reacher_v5 import ReacherEnv

    assert mask_indices("paper", HopperEnv()) == (0, 1, 2, 3, 4)
    assert mask_indices("velocities", ReacherEnv()) == (6, 7)


@pytest.mark.parametrize(
    ("mask", "kept"),
    [
        ("0,1,2,8", (0, 1, 2, 8)),
        ("0-3,8-12", (0, 1, 2, 3, 8, 9, 10, 11, 12)),
        (" 16 , 2 - 4,0", (16, 2, 3, 4, 0)),
        ("5-5", (5,)),
        ("0-16", tuple(range(17))),
        ("none", tuple(range(17))),
    ],
)
def test_lists(mask, kept):
    assert mask_indices(mask, make("HalfCheetah-v5")) == kept


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ("", "the mask is empty: use none, paper"),
        (" ", "the mask is empty"),
        ("0,,1", "'' is not a number or a range"),
        ("0,1,", "'' is not a number or a range"),
        ("position", "'position' is not a number or a range: use none, paper, positions"),
        ("-1", "'-1' is not a number"),
        ("1.5", "'1.5' is not a number"),
        ("0-3-5", "'0-3-5' is not a number"),
        ("1_0", "'1_0' is not a number"),
        ("7-3", "the range 7-3 runs backwards: 3-7[?]"),
        ("3,1,3", "'3,1,3' names component 3 twice"),
        ("4-8,0-5", "names component 4 twice"),
        ("0-16,3", "names component 3 twice"),
    ],
)
def test_a_malformed_list_is_refused_without_its_environment(mask, message):
    with pytest.raises(SlipstreamError, match=message):
        parse_mask(mask)


@pytest.mark.parametrize(("mask", "last"), [("17", 17), ("40,0", 40), ("0-999999999", 999999999)])
def test_a_component_that_does_not_exist_is_refused(mask, last):
    message = f"keeps component {last}, but the observation of HalfCheetah-v5 has 17: use 0 to 16"
    with pytest.raises(SlipstreamError, match=message):
        mask_indices(mask, make("HalfCheetah-v5"))


def lengthened(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
    return gym.wrappers.TimeAwareObservation(env, normalize_time=False, flatten=True)


@pytest.mark.filterwarnings("ignore:.*out of date:DeprecationWarning")
@pytest.mark.parametrize(
    ("mask", "env", "message"),
    [
        ("paper", "Walker2d-v5", "HalfCheetah, Hopper and Ant, not for Walker2d-v5: use positions"),
        ("positions", "Pendulum-v1", "Pendulum-v1 is no MuJoCo environment as Gymnasium's are"),
        (
            "positions",
            lambda: lengthened(make("Hopper-v5")),
            "Hopper-v5 makes observations of 11 components, but here they have 12",
        ),
        (
            "paper",
            lambda: make("Hopper-v5", exclude_current_positions_from_observation=False),
            r"by default \(11 of them\), but here the observation has 12",
        ),
        ("0", "FrozenLake-v1", "FrozenLake-v1 has a Discrete observation, but only a vector"),
        (
            "none",
            lambda: gym.wrappers.FrameStackObservation(make("Pendulum-v1"), 2),
            r"Pendulum-v1 has a Box of shape \(2, 3\) observation",
        ),
    ],
)
def test_a_mask_that_does_not_fit_its_environment_is_refused(mask, env, message):
    env = make(env) if isinstance(env, str) else env()
    with pytest.raises(SlipstreamError, match=message) as caught:
        mask_indices(mask, env)
    assert "\n" not in str(caught.value)


def test_an_observation_that_is_no_vector_cannot_be_masked():
    with pytest.raises(SlipstreamError, match="only a vector"):
        MaskObservation(make("FrozenLake-v1"), (0,))


def test_the_wrapper_shows_the_kept_components_in_order():
    plain, masked = make("Hopper-v5"), MaskObservation(make("Hopper-v5"), (4, 0, 10))
    obs, _ = plain.reset(seed=3)
    shown, _ = masked.reset(seed=3)
    assert shown.tolist() == [obs[4], obs[0], obs[10]]
    plain.action_space.seed(0)
    ends = [False, False]
    while not any(ends):
        action = plain.action_space.sample()
        obs = plain.step(action)[0]
        shown, _, *ends, _ = masked.step(action)
        assert shown.tolist() == [obs[4], obs[0], obs[10]]
    assert ends == [True, False]  # a fall: its last observation was masked too


def test_the_space_keeps_bounds_and_dtype():
    masked = MaskObservation(make("Pendulum-v1"), (2, 1))
    assert masked.observation_space == gym.spaces.Box(
        np.array([-8, -1], np.float32), np.array([8, 1], np.float32), dtype=np.float32
    )
    wide = MaskObservation(make("HalfCheetah-v5"), (0,)).observation_space
    assert (wide.shape, wide.dtype) == ((1,), np.float64)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("env_id", ["HalfCheetah-v5", "Pendulum-v1"])
def test_the_wrapper_keeps_the_gymnasium_contract(env_id):
    masked = MaskObservation(make(env_id), (0, 2))
    check_env(masked, skip_render_check=True, skip_close_check=True)
