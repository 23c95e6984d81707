"""Images in a run: encoded once a frame, then replaced by embeddings of a frozen encoder."""

from dataclasses import replace
from functools import partial

import gymnasium as gym
import numpy as np
import pytest
import torch

from slipstream.envs.vec_env import make_env
from slipstream.networks.cnn import CNNConfig
from slipstream.stages.interact import Interaction
from slipstream.stages.learners import ALGORITHMS
from slipstream.stages.team import Team
from tests.stages.teams import CONFIG

CNN = CNNConfig(channels=(4,), kernels=(4,), strides=(4,), embed_size=6, segment=4)


class Picture(gym.Env):
    """Shows a random image, and beside it what it is about."""

    def __init__(self) -> None:
        image = gym.spaces.Box(0, 255, (12, 12, 3), np.uint8)
        state = gym.spaces.Box(-1, 1, (2,))
        self.observation_space = gym.spaces.Dict(rgb=image, privileged=state)
        self.action_space = gym.spaces.Box(-1, 1, (1,))

    def _obs(self):
        return {
            "rgb": self.np_random.integers(0, 256, (12, 12, 3), np.uint8),
            "privileged": self.np_random.uniform(-1, 1, 2).astype(np.float32),
        }

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self._obs(), {}

    def step(self, action):
        self.t += 1
        return self._obs(), float(action[0]), False, self.t == 9, {}


def make_team(privileged=("accelerator", "critic"), **fields):
    networks = replace(CONFIG.networks, cnn=CNN)
    config = replace(CONFIG, networks=networks, privileged=privileged, **fields)
    torch.manual_seed(0)
    env = make_env(partial(Picture), num_envs=2)
    team = Team(replace(config, num_envs=2), env.spec, lambda: make_env(Picture))
    stage = team.enter("accelerate")
    interaction = Interaction(env, team.replay, team.normalizers)
    interaction.begin(stage.collector, seed=0)
    for _ in range(25):
        interaction.step(stage.collector, stage.learner.explore)
    return team, interaction, stage, env


def test_cloning_draws_several_steps_of_a_window_and_only_what_it_reads():
    _, _, stage, _ = make_team()
    assert stage.imitation is not None
    drawn = []
    sample = stage.imitation.replay.sample

    def spy(*args, **kwargs):
        drawn.append((args, sample(*args, **kwargs)))
        return drawn[-1][1]

    stage.imitation.replay.sample = spy
    stage.imitation.update()
    ((windows, context, loss_steps), batch) = drawn[0]
    assert (windows, context, loss_steps) == (4, 3 + 4 - 1, 4)  # 16 steps, three frames before each
    assert set(batch.window) == {"rgb", "privileged"}
    drawn.clear()
    stage.replay.sample = spy
    stage.learn(1)
    assert set(drawn[0][1].window) == {"privileged"}  # accelerator and critic look at no image
    assert drawn[0][1].loss_steps == 1


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_stage_2_keeps_embeddings_in_place_of_images(algorithm):
    team, _, stage, env = make_team(algorithm=algorithm)
    transformer = team.actors["transformer"]
    images = team.replay.sample(64, 1, generator=torch.Generator().manual_seed(0))
    bytes_before = team.replay.num_bytes // team.replay.capacity

    online = team.enter("online", stage)
    assert team.embedder is not None
    assert set(online.replay.spec.obs) == {"rgb.embedding", "privileged"}
    assert online.replay.num_bytes // online.replay.capacity < bytes_before / 5
    # Row for row what the encoder makes of the images.
    batch = online.replay.sample(200, 1)
    known = {tuple(row.tolist()): i for i, row in enumerate(images.window["privileged"][:, 0])}
    compared = 0
    for state, embedding in zip(
        batch.window["privileged"][:, 0], batch.window["rgb.embedding"][:, 0], strict=True
    ):
        i = known.get(tuple(state.tolist()))
        if i is not None:
            with torch.no_grad():
                expected = transformer.inputs.encoders["rgb"](images.window["rgb"][i, 0])
            torch.testing.assert_close(embedding, expected, rtol=1e-4, atol=1e-5)
            compared += 1
    assert compared > 5

    # The run goes on: images are embedded before anybody sees them, and the encoder stands still.
    before = {k: v.clone() for k, v in transformer.inputs.encoders.state_dict().items()}
    head = {k: v.clone() for k, v in transformer.head.state_dict().items()}
    interaction = Interaction(env, team.replay, team.normalizers, team.embedder.obs)
    interaction.begin(online.collector)
    for _ in range(20):
        interaction.step(online.collector, online.learner.explore)
    online.learn(4)
    for key, value in transformer.inputs.encoders.state_dict().items():
        assert torch.equal(value, before[key])
    assert any(not torch.equal(v, head[k]) for k, v in transformer.head.state_dict().items())
    acted = transformer.step(
        {k: torch.as_tensor(v) for k, v in env.current_obs.items()}, transformer.initial_carry(2)
    )[0]
    embedded = {k: torch.as_tensor(v) for k, v in team.embedder.obs(env.current_obs).items()}
    torch.testing.assert_close(
        transformer.step(embedded, transformer.initial_carry(2))[0].mode, acted.mode
    )


@pytest.mark.parametrize(("privileged", "freeze"), [((), True), (("accelerator", "critic"), False)])
def test_images_stay_where_an_encoder_still_learns(privileged, freeze):
    online = replace(CONFIG.online, freeze_encoder=freeze)
    team, _, stage, _ = make_team(privileged=privileged, online=online)
    before = {
        k: v.clone() for k, v in team.actors["transformer"].inputs.encoders.state_dict().items()
    }
    second = team.enter("online", stage)
    assert team.embedder is None and "rgb" in second.replay.spec.obs
    assert second.loss_steps == 4
    second.learn(2)
    after = team.actors["transformer"].inputs.encoders.state_dict()
    assert any(not torch.equal(after[key], value) for key, value in before.items())
