"""Images show the present, cost the task nothing, and can be made again from a stored state."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from slipstream.envs import gl
from slipstream.envs.mujoco_cameras import MujocoCameras
from slipstream.envs.observation import ObservationConfig
from slipstream.envs.pixels import RenderCameras, render_state, sim_state
from slipstream.envs.registry import build
from slipstream.envs.setup import EnvConfig, open_env, open_single
from slipstream.errors import SlipstreamError
from tests.envs.counting import Counting

TASKS = ["HalfCheetah-v5", "Hopper-v5", "Walker2d-v5", "Ant-v5"]
mujoco: Any = pytest.importorskip("mujoco")  # its type stubs lack most of it
PATH = "tests.envs.test_pixels"


@pytest.fixture(scope="module", autouse=True)
def _needs_opengl():
    try:
        gl.open_context(8).free()
    except SlipstreamError as error:
        pytest.skip(str(error))


def actions(env: gym.Env[Any, Any], num: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (num, *(env.action_space.shape or ())))


@pytest.mark.parametrize("env_id", TASKS)
def test_a_stored_state_gives_the_very_same_pixels(env_id):
    env = open_single(env_id, EnvConfig(obs="rgb"))
    frames, states = [env.reset(seed=0)[0]["rgb"]], [sim_state(env)]
    for action in actions(env, 100):
        obs, _, terminated, truncated, _ = env.step(action)
        frames.append(obs["rgb"])
        states.append(sim_state(env))
        if terminated or truncated:
            env.reset()
    # The frames are pictures, and of different moments.
    assert {frame.shape for frame in frames} == {(64, 64, 3)}
    assert min(frame.std() for frame in frames) > 10
    assert len({frame.tobytes() for frame in frames}) == len(frames)
    # Of an environment that was never even reset, in an order that none was stepped in.
    other = open_single(env_id, EnvConfig(obs="rgb"))
    for i in np.random.default_rng(1).permutation(len(frames)):
        assert np.array_equal(render_state(other, states[i])["rgb"], frames[i])


@pytest.mark.parametrize("env_id", TASKS)
def test_what_is_drawn_is_where_mj_forward_puts_it(env_id):
    env = open_single(env_id, EnvConfig(obs="rgb"))
    env.reset(seed=0)
    for action in actions(env, 20):
        env.step(action)
    inner: Any = env.unwrapped
    model, data = inner.model, inner.data
    drawn = env.get_wrapper_attr("cameras")._scratch
    reference = mujoco.MjData(model)
    reference.qpos[:], reference.qvel[:] = data.qpos, data.qvel
    mujoco.mj_forward(model, reference)
    for name in ("geom_xpos", "geom_xmat", "cam_xpos", "cam_xmat", "light_xpos", "light_xdir"):
        assert np.array_equal(getattr(drawn, name), getattr(reference, name)), name
    # The simulator's own data is a substep behind, so an image made of it would be another.
    assert not np.array_equal(data.geom_xpos, reference.geom_xpos)


@pytest.mark.parametrize("env_id", ["Ant-v5", "HalfCheetah-v5"])
def test_rendering_changes_nothing_of_the_task(env_id):
    plain = build(env_id, {})
    shown = open_single(env_id, EnvConfig(obs="rgb+state"))
    other_state = np.zeros(len(sim_state(shown)))
    first, _ = plain.reset(seed=3)
    obs, _ = shown.reset(seed=3)
    assert np.array_equal(obs["state"], first)
    for action in actions(plain, 30):
        expected = plain.step(action)
        obs, *rest = shown.step(action)
        render_state(shown, other_state)
        assert np.array_equal(obs["state"], expected[0])
        assert rest[:3] == list(expected)[1:4]


def test_the_model_is_as_it_was_once_the_cameras_are_open():
    env = build("Hopper-v5", {})
    inner: Any = env.unwrapped
    model = inner.model

    def look() -> list[Any]:
        quality, buffer = model.vis.quality, model.vis.global_
        numbers = [quality.shadowsize, quality.offsamples, quality.numslices, quality.numstacks]
        return [*numbers, buffer.offwidth, buffer.offheight, model.geom_size.tolist()]

    before = look()
    cameras = MujocoCameras(env, 64)
    cameras.render()
    assert look() == before
    cameras.close()
    cameras.render()  # opens them again
    cameras.close()
    cameras.close()


def test_several_environments_draw_into_their_own_images():
    first, second = (open_single(name, EnvConfig(obs="rgb")) for name in TASKS[:2])
    a, b = first.reset(seed=0)[0]["rgb"], second.reset(seed=0)[0]["rgb"]
    assert not np.array_equal(a, b)
    assert np.array_equal(render_state(first, sim_state(first))["rgb"], a)
    second.close()
    assert np.array_equal(render_state(first, sim_state(first))["rgb"], a)


def test_stored_states_of_all_observations_make_their_images():
    """Through the vector environment, an episode's last observation included."""
    config = EnvConfig(obs="rgb", max_episode_steps=5)
    rendered = open_env("Walker2d-v5", config, 2, privileged=True)
    stored = open_env("Walker2d-v5", config, 2, privileged=True, on_demand=True)
    assert stored.spec.obs["sim_state"].dtype == "float64"
    assert set(stored.spec.obs) == {"sim_state", "privileged"}
    renderer = open_single("Walker2d-v5", config)
    rendered.reset(0)
    stored.reset(0)
    ended = 0
    for action in np.random.default_rng(0).uniform(-1, 1, (12, 2, 6)):
        a, b = rendered.step(action), stored.step(action)
        ended += len(a.episodes)
        for images, states in ((a.next_obs, b.next_obs), (a.obs, b.obs)):
            assert np.array_equal(images["privileged"], states["privileged"])
            for i in range(2):
                again = render_state(renderer, states["sim_state"][i])["rgb"]
                assert np.array_equal(again, images["rgb"][i])
    assert ended == 4


def test_an_environment_knows_what_its_stored_states_look_like():
    config = EnvConfig(obs="rgb+state", max_episode_steps=5)
    rendered = open_env("Walker2d-v5", config, 2, privileged=True)
    stored = open_env("Walker2d-v5", config, 2, privileged=True, on_demand=True)
    assert stored.spec_rendered == rendered.spec == rendered.spec_rendered
    states = stored.reset(0)["sim_state"]
    images = open_env("Walker2d-v5", config, 1).render_states(states)
    assert np.array_equal(images["rgb"], rendered.reset(0)["rgb"])


def test_who_looks_at_no_image_need_not_wait_for_one(monkeypatch):
    env = open_env("Walker2d-v5", EnvConfig(obs="rgb"), 2, privileged=True)
    first = env.reset(0)
    env.show_images(False)
    monkeypatch.setattr(MujocoCameras, "render", lambda self: pytest.fail("rendered"))
    again = env.reset(0)
    assert np.array_equal(again["privileged"], first["privileged"])
    assert first["rgb"].any() and not again["rgb"].any()
    monkeypatch.undo()
    env.show_images(True)
    assert np.array_equal(env.reset(0)["rgb"], first["rgb"])
    for other in (EnvConfig(), EnvConfig(obs="state", normalize_obs=True)):
        open_env("Walker2d-v5", other, 1).show_images(False)  # there is nothing to leave out


@pytest.mark.parametrize("on_demand", [False, True])
def test_the_blind_see_black_and_cost_nothing(on_demand, monkeypatch):
    for name in ("render", "render_state"):
        monkeypatch.setattr(MujocoCameras, name, lambda *_: pytest.fail("rendered"))
    env = open_env("Walker2d-v5", EnvConfig(obs="rgb+state", blind=True), 1, on_demand=on_demand)
    seeing = open_env("Walker2d-v5", EnvConfig(obs="rgb+state"), 1, on_demand=on_demand)
    assert env.spec == seeing.spec
    obs = env.reset(0)
    action = np.full((1, 6), 0.5)
    next_obs = env.step(action).next_obs
    if on_demand:
        assert not env.render_states(obs["sim_state"])["rgb"].any()
    else:
        assert not obs["rgb"].any() and not next_obs["rgb"].any()
    assert next_obs["state"].any()


def test_the_blind_do_not_see_images_of_an_environments_own():
    env = open_env(f"{PATH}:ImageEnv", EnvConfig(blind=True), 1)
    env.reset(0)
    assert not env.step(np.zeros((1, 1))).obs["rgb"].any()
    with pytest.raises(SlipstreamError, match="Walker2d-v5 shows its state alone; use --obs rgb"):
        open_single("Walker2d-v5", EnvConfig(blind=True))


def test_images_go_on_exactly_after_a_resume():
    def fresh():
        return open_env("Hopper-v5", EnvConfig(obs="rgb"), 2)

    env = fresh()
    env.reset(0)
    moves = np.random.default_rng(0).uniform(-1, 1, (8, 2, 3))
    for action in moves[:5]:
        env.step(action)
    again = fresh()
    assert again.load_state_dict(env.state_dict()) is True
    assert np.array_equal(again.current_obs["rgb"], env.current_obs["rgb"])
    for action in moves[5:]:
        assert np.array_equal(again.step(action).obs["rgb"], env.step(action).obs["rgb"])


def test_processes_see_what_this_one_sees():
    config = EnvConfig(obs="rgb", image_size=32)
    here, there = (open_env("HalfCheetah-v5", config, 2, parallel=p) for p in (False, True))
    assert np.array_equal(here.reset(0)["rgb"], there.reset(0)["rgb"])
    action = np.full((2, 6), 0.5)
    assert np.array_equal(here.step(action).obs["rgb"], there.step(action).obs["rgb"])
    there.close()


@pytest.mark.parametrize("on_demand", [False, True])
def test_images_are_as_late_as_the_state_beside_them(on_demand):
    def seen(delay: int) -> list[dict[str, np.ndarray]]:
        config = EnvConfig(obs="rgb+state", image_size=16, observe=ObservationConfig(delay=delay))
        env = open_single("Hopper-v5", config, privileged=True, on_demand=on_demand)
        rows = [env.reset(seed=0)[0]]
        return rows + [env.step(np.full(3, 0.3, np.float32))[0] for _ in range(6)]

    present, late = seen(0), seen(2)
    for t, row in enumerate(late):
        then = present[max(t - 2, 0)]
        assert np.array_equal(row["privileged"], present[t]["privileged"])
        for key in ("state", "sim_state" if on_demand else "rgb"):
            assert np.array_equal(row[key], then[key])


def test_images_alone_may_be_lost():
    config = EnvConfig(obs="rgb", image_size=16, observe=ObservationConfig(drop=1.0))
    env = open_env("Hopper-v5", config, 2)
    first = env.reset(0)["rgb"].copy()
    for _ in range(3):
        assert np.array_equal(env.step(np.full((2, 3), 0.3)).next_obs["rgb"], first)
    env.show_images(False)
    assert not env.reset(0)["rgb"].any()


def test_the_state_beside_images_is_masked_and_the_privileged_one_is_not():
    config = EnvConfig(obs="rgb+state", observe=ObservationConfig("positions"))
    env = open_single("HalfCheetah-v5", config, privileged=True)
    obs, _ = env.reset(seed=0)
    assert {key: value.shape for key, value in obs.items()} == {
        "rgb": (64, 64, 3),
        "state": (8,),
        "privileged": (17,),
    }
    assert obs in env.observation_space
    assert np.array_equal(obs["state"], obs["privileged"][:8])


@pytest.mark.parametrize("env_id", ["Reacher-v5", "InvertedPendulum-v5", "Humanoid-v5"])
def test_models_with_and_without_a_tracking_camera_are_seen(env_id):
    env = open_single(env_id, EnvConfig(obs="rgb", image_size=96))
    obs, _ = env.reset(seed=0)
    assert obs["rgb"].shape == (96, 96, 3)
    assert obs["rgb"].std() > 5


class Painter(Counting):
    """Renders 4 x 6 pixels whose blocks of 2 x 3 have the step's number, plus 0, 20, 40 and 60."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012
    render_mode = "rgb_array"
    observation_space: gym.Space[Any] = gym.spaces.Discrete(3)
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)

    def show(self) -> Any:
        return 0

    def render(self):
        blocks = np.array([[0, 20], [40, 60]]) + self.t
        return np.kron(blocks, np.ones((2, 3)))[..., None].repeat(3, -1).astype(np.uint8)


class ImageEnv(Painter):
    """Shows images of its own."""

    observation_space = gym.spaces.Box(0, 255, (2, 2, 3), np.uint8)

    def show(self):
        return np.full((2, 2, 3), self.t, np.uint8)


def test_any_environment_that_renders_can_be_seen():
    cameras = RenderCameras(Painter(), 2)
    env = cameras._env
    env.reset()
    assert cameras.render()["rgb"][..., 0].tolist() == [[0, 20], [40, 60]]
    shown = open_env(f"{PATH}:Painter", EnvConfig(obs="rgb", image_size=8), 1)
    assert shown.reset(0)["rgb"][0, ::4, ::4, 1].tolist() == [[0, 20], [40, 60]]
    assert shown.step(np.zeros((1, 1))).next_obs["rgb"][0, ::4, ::4, 1].tolist() == [
        [1, 21],
        [41, 61],
    ]


def test_an_environment_with_images_of_its_own_keeps_them():
    env = open_env(f"{PATH}:ImageEnv", EnvConfig(obs="rgb"), 1)
    assert env.spec.obs["rgb"].shape == (2, 2, 3)
    env.reset(0)
    assert (env.step(np.zeros((1, 1))).obs["rgb"] == 1).all()


@pytest.mark.parametrize(
    ("env_id", "config", "message"),
    [
        ("Hopper-v5", {"camera": "side"}, "no camera 'side'; choose one of track"),
        ("Reacher-v5", {"camera": "side"}, "no camera 'side', the model has none"),
        ("Hopper-v5", {"obs": "rgb+depth"}, "only ManiSkill tasks show depth"),
        (f"{PATH}:Painter", {"camera": "side"}, "Painter has no cameras to choose from"),
    ],
)
def test_what_cannot_be_shown_is_said(env_id, config, message):
    with pytest.raises(SlipstreamError, match=message):
        open_single(env_id, EnvConfig(**{"obs": "rgb", **config}))


def test_a_state_that_does_not_fit_is_refused():
    env = open_single("Hopper-v5", EnvConfig(obs="rgb"))
    with pytest.raises(SlipstreamError, match=r"Hopper-v5 has the shape \(12,\), not \(3,\)"):
        render_state(env, np.zeros(3))
    with pytest.raises(SlipstreamError, match="opened without images"):
        sim_state(open_single("Hopper-v5", EnvConfig()))
    painter = open_single(f"{PATH}:Painter", EnvConfig(obs="rgb"))
    with pytest.raises(SlipstreamError, match="Painter cannot be rendered on demand"):
        sim_state(painter)
    # So it is rendered all the same.
    assert set(open_env(f"{PATH}:Painter", EnvConfig(obs="rgb"), 1, on_demand=True).spec.obs) == {
        "rgb"
    }


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"image_size": 4}, r"env\.image_size is 4; it must be at least 8"),
        (
            {"obs": "rgb", "observe": ObservationConfig("positions")},
            r"change the state, but obs is 'rgb'; use 'rgb\+state'",
        ),
    ],
)
def test_values_that_make_no_observation_are_refused(values, message):
    with pytest.raises(SlipstreamError, match=message):
        EnvConfig(**values)


def test_without_opengl_the_remedy_is_named(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "off")
    with pytest.raises(SlipstreamError, match=r"MUJOCO_GL is 'off'.*egl, osmesa, glfw"):
        gl.open_context(8)
    monkeypatch.delenv("MUJOCO_GL")
    monkeypatch.setattr(gl, "BACKENDS", {"egl": "libNoSuchThing.so.1"})
    with pytest.raises(SlipstreamError, match="scripts/install-system-packages pixels"):
        gl.open_context(8)
    # A library that is there, but opens nothing.
    monkeypatch.setattr(gl, "choose_backend", lambda: "nonsense")
    env = open_single("Hopper-v5", EnvConfig(obs="rgb"))
    with pytest.raises(SlipstreamError, match=r"OpenGL by nonsense failed.*slipstream doctor"):
        env.reset(seed=0)


class TwoViews(gym.Env):
    """Shows an image of its own and two vectors, one for privileged networks."""

    observation_space = gym.spaces.Dict(
        camera=gym.spaces.Box(0, 255, (16, 16, 3), np.uint8),
        joints=gym.spaces.Box(-1, 1, (4,)),
        privileged=gym.spaces.Box(-1, 1, (2,)),
    )
    action_space = gym.spaces.Box(-1, 1, (1,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation_space.sample(), 0.0, False, False, {}


def test_an_image_of_ones_own_in_place_of_the_state():
    env_id = f"{__name__}:TwoViews"
    shown = {
        obs: set(open_env(env_id, EnvConfig(obs=obs), 1).reset(0))
        for obs in ("state", "rgb", "rgb+state")
    }
    assert shown["state"] == shown["rgb+state"] == {"camera", "joints", "privileged"}
    assert shown["rgb"] == {"camera", "privileged"}


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        ({"camera": "top"}, "images of its own, which env.camera top cannot change"),
        ({"image_size": 20}, "which env.image_size 20 cannot change"),
        ({"obs": "depth"}, "which obs depth cannot change"),
    ],
)
def test_what_cannot_change_an_image_of_ones_own_is_refused(seen, said):
    with pytest.raises(SlipstreamError, match=said):
        open_env(f"{__name__}:TwoViews", EnvConfig(**{"obs": "rgb", **seen}), 1)
