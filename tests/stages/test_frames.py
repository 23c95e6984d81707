"""Images on demand: rendered when somebody looks, once each, the very pixels of the moment."""

from collections import Counter
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from slipstream.envs import gl
from slipstream.envs.setup import EnvConfig, open_env
from slipstream.errors import SlipstreamError
from slipstream.networks.cnn import CNNConfig
from slipstream.replay import ReplayBuffer
from slipstream.spec import ArraySpec
from slipstream.stages.frames import Frames, SingleEnv
from slipstream.stages.interact import Interaction
from slipstream.stages.team import Team
from tests.replay.reference import SPEC, Recorder
from tests.replay.test_buffer import check, histories
from tests.stages.teams import CONFIG

STORED = replace(
    SPEC, obs={"state": SPEC.obs["state"], "sim_state": ArraySpec((3,), dtype="float64")}
)


class Painter:
    """Makes of a state what `Recorder` shows with it, and counts."""

    def __init__(self) -> None:
        self.painted: Counter[tuple[float, ...]] = Counter()

    def render_states(self, states):
        self.painted.update(map(tuple, states.tolist()))
        return {"rgb": (states[:, None, 1:] % 256).astype(np.uint8)}


class StateRecorder(Recorder):
    def obs(self):
        obs = super().obs()
        return {**obs, "sim_state": obs["state"].astype(np.float64)}


@settings(max_examples=60, deadline=None)
@given(histories(), st.integers(2, 9), st.integers(1, 6), st.integers(1, 7))
def test_rows_that_follow_a_replay_are_its_newest_with_images(history, share, context, every):
    capacity, num_envs, events = history
    recorder = StateRecorder(capacity, num_envs)
    recorder.replay = replay = ReplayBuffer(STORED, capacity, num_envs)
    share = min(share, replay.rows_per_env)
    painter: Any = Painter()
    frames = Frames(ReplayBuffer(SPEC, share * num_envs, num_envs), SingleEnv(lambda: painter))
    recorder.begin(np.ones(num_envs, bool))
    for i, (kind, *args) in enumerate(events):
        if kind == "add":
            acted, terminated, truncated = (np.array(flags) for flags in args)
            recorder.add(acted & recorder.running(), terminated, truncated)
            recorder.begin(~recorder.running())
        elif kind == "begin":
            recorder.begin(np.array(args[0]))
        if i % every == 0:
            assert frames.follow(replay) is frames.rows
            before = frames.num_rendered
            frames.follow(replay)
            assert frames.num_rendered == before
            reference = recorder.reference
            reference.rows_per_env, whole = share, reference.rows_per_env
            check(SimpleNamespace(replay=frames.rows, reference=reference), context)  # pyright: ignore[reportArgumentType]
            reference.rows_per_env = whole
    # Twice where a row was seen while it waited for its action, and is then seen completed.
    assert max(painter.painted.values(), default=0) <= 2
    assert frames.num_rendered == painter.painted.total()


CNN = CNNConfig(channels=(4,), kernels=(4,), strides=(4,), embed_size=6, segment=4)


@pytest.fixture
def opengl():
    try:
        gl.open_context(8).free()
    except SlipstreamError as error:
        pytest.skip(str(error))


def collect(
    on_demand: bool,
    env_id: str = "Hopper-v5",
    num_steps: int = 60,
    num_envs: int = 2,
    **fields: Any,
):
    """A team whose accelerator and critic see the state, after some steps of stage 1."""
    networks = replace(CONFIG.networks, cnn=CNN)
    config = replace(
        CONFIG,
        networks=networks,
        privileged=("accelerator", "critic"),
        num_envs=num_envs,
        accelerate=replace(CONFIG.accelerate, replay_capacity=100 * num_envs),
        **{"online": replace(CONFIG.online, replay_capacity=50 * num_envs), **fields},
    )
    shown = EnvConfig(obs="rgb", image_size=16, max_episode_steps=13)
    make = partial(open_env, env_id, shown, privileged=True)
    env = make(num_envs=num_envs, on_demand=on_demand)
    torch.manual_seed(0)
    team = Team(config, env.spec_rendered, lambda: make(num_envs=1), stored=env.spec)
    stage = team.enter("accelerate")
    interaction = Interaction(env, team.replay, team.normalizers)
    interaction.begin(stage.collector, seed=0)
    for _ in range(num_steps):
        interaction.step(stage.collector, stage.learner.explore)
    return team, stage


def rows_of(replay: ReplayBuffer) -> dict[str, torch.Tensor]:
    return replay.state_dict()["rows"]


def check_rendered_later(env_id: str) -> None:
    """Rows that are rendered later are those that are rendered while stepping."""
    (rendered, _), (stored, stage) = (collect(on_demand, env_id) for on_demand in (False, True))
    assert "rgb" not in rows_of(stored.replay) and stage.imitation is not None
    frames = stage.imitation.frames
    assert frames is not None and frames.num_rendered == 0
    rows = rows_of(frames.follow(stored.replay))
    expected = rows_of(rendered.replay)
    assert rows.keys() == expected.keys()
    assert len(torch.unique(rows["obs.rgb"].flatten(2).flatten(0, 1), dim=0)) > 50
    for name, value in expected.items():
        assert torch.equal(rows[name], value), name
    assert frames.num_rendered == len(stored.replay)


@pytest.mark.usefixtures("opengl")
def test_rows_rendered_later_are_those_rendered_while_stepping():
    check_rendered_later("Hopper-v5")


@pytest.mark.usefixtures("opengl")
@pytest.mark.parametrize("freeze", [True, False])
@pytest.mark.parametrize("keep", [None, 30, 0])
def test_stage_2_goes_on_with_what_it_would_have_had_from_rendering(freeze, keep):
    """The rows beyond those that were cloned from are rendered at the switch, a part at a time."""
    online = replace(CONFIG.online, replay_capacity=100, freeze_encoder=freeze, carry_rows=keep)
    cloning = replace(CONFIG.cloning, frames=40)
    found = []
    for on_demand in (False, True):
        team, stage = collect(on_demand, online=online, cloning=cloning)
        assert stage.imitation is not None
        if (frames := stage.imitation.frames) is not None:
            frames.follow(team.replay)
            assert frames.num_rendered == 40
        team.enter("online", stage)
        found.append(rows_of(team.replay))
        if frames is not None:
            taken = 100 if keep is None else 40  # what was cloned from is there already
            assert frames.num_rendered == taken
    assert found[0].keys() == found[1].keys()
    assert ("obs.rgb.embedding" in found[0]) is freeze
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, rtol=1e-5, atol=1e-6)
    assert found[0]["step"].shape[1] == {None: 50, 30: 15, 0: 1}[keep]
    assert "obs.rgb" in found[0] or "obs.rgb.embedding" in found[0]
