"""What an environment shows on a device stays on it, all the way into the replay."""

from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scripts.docs_blocks import blocks

from slipstream.envs.arrays import HostArrays
from slipstream.envs.device_arrays import DeviceArrays
from slipstream.envs.making import make_env
from slipstream.envs.spaces import ActionScale
from slipstream.envs.vec_env import VecEnv
from slipstream.errors import SlipstreamError
from slipstream.judging.evaluation import evaluate
from slipstream.networks import Normalizer
from slipstream.replay import ReplayBuffer
from slipstream.stages.interact import Interaction
from tests.envs.torch_envs import TorchCounter, host_transfers
from tests.networks.policies import actor_of, critic_config
from tests.replay.test_buffer import indices_by

DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
    ),
]


def counter(device="cpu", **seen) -> tuple[VecEnv, TorchCounter]:
    inner = TorchCounter(device=device)
    return make_env(inner, **seen), inner


@pytest.mark.parametrize("device", DEVICES)
def test_observations_reach_the_replay_without_the_host(device):
    env, inner = counter(device, prev_action=True, prev_reward=True)
    torch.manual_seed(0)
    normalizer = Normalizer(5).to(device)
    actor = actor_of("transformer", critic_config(), spec=env.spec).to(device)
    with indices_by("torch" if device == "cpu" else "cuda"):
        replay = ReplayBuffer(env.spec, 300, 3, device)
        interaction = Interaction(env, replay, {"state": normalizer})
        interaction.begin(actor, seed=0)
        num_ends = 0
        with host_transfers() as shapes:
            for _ in range(10):
                num_ends += bool(interaction.step(actor, lambda output: output.mode).episodes)
        assert 0 < num_ends < 10
        # One transfer a step, of N numbers for each thing told, and one of N flags at an end.
        assert len(shapes) == 10 + num_ends
        assert {shape[-1] for shape in shapes} == {3}
        assert max(len(shape) for shape in shapes) == 2
        batch = replay.sample(200, 1)
    assert all(value.device.type == device for value in inner.taken)
    steps = batch.window["state"][:, :, 0].cpu()
    assert torch.equal(steps[:, 1], steps[:, 0] + 1)  # the last observation of an episode too
    assert torch.equal(batch.window["rgb"][:, :, 4, 4, 1].cpu().float(), steps)
    assert set(steps[:, 1].tolist()) == {1, 2, 3, 4, 5}


@pytest.mark.parametrize("device", DEVICES)
def test_evaluation_leaves_them_where_they_are(device):
    env, _ = counter(device)
    actor = actor_of("transformer", critic_config(), spec=env.spec).to(device)
    with host_transfers() as shapes:
        found = evaluate(actor, env, [1, 2, 3])
    assert found.lengths == (2, 3, 5)
    assert found.successes == (True, True, True)
    assert found.successes_at_end == (True, False, False)
    assert {shape[-1] for shape in shapes} == {3}


def test_previous_actions_and_rewards_are_shown():
    env, inner = counter(prev_action=True, prev_reward=True, differences=True)
    first = env.reset()
    assert not first["prev_action"].any() and not first["state.difference"].any()
    before = first["state"].clone()
    action = torch.tensor([[0.5, -2.0], [0.0, 0.0], [-0.25, 1.0]])
    result = env.step(action)
    assert torch.equal(result.obs["prev_action"], action.clamp(-1, 1))
    assert torch.allclose(inner.taken[0], torch.tensor([[2, 0], [1, 0.25], [0.5, 0.5]]))
    assert result.obs["prev_reward"][:, 0].tolist() == [2, 1.25, 1]
    assert torch.equal(result.obs["state.difference"], result.obs["state"] - before)
    assert result.obs["state.difference"].any(1).all()
    result = env.step(action)  # the first episode ends
    assert result.started.tolist() == [True, False, False]
    assert result.next_obs["prev_action"][0].tolist() == [0.5, -1]
    assert not result.obs["prev_action"][0].any() and not result.obs["prev_reward"][0].any()
    assert not result.obs["state.difference"][0].any()
    assert result.next_obs["state.difference"].any(1).all()
    assert torch.equal(result.obs["prev_action"][1:], action[1:])


@given(
    st.lists(st.floats(-3, 3, width=32), min_size=4, max_size=4),
    st.floats(-100, 0, width=32),
    st.floats(0.125, 100, width=32),
)
def test_actions_are_scaled_as_on_the_host(action, low, high):
    scale = ActionScale(gym.spaces.Box(low, high, (2,), np.float32), "it")
    rows = np.array(action, np.float32).reshape(2, 2)
    expected = HostArrays(scale).to_env(rows, 2)
    found = DeviceArrays(scale, "cpu").to_env(torch.as_tensor(rows), 2).numpy()
    assert found.dtype == expected.dtype
    assert np.array_equal(found, expected)


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (torch.zeros(2, 2), r"takes actions of shape \(3, 2\), got \(2, 2\)"),
        (
            torch.tensor([[0, 0], [0, torch.nan], [0, 0]]),
            "component 1 of the action for environment 1 is nan: the policy diverged",
        ),
    ],
)
def test_a_bad_action_is_refused(action, message):
    env, _ = counter()
    env.reset()
    with pytest.raises(SlipstreamError, match=message):
        env.step(action)


def test_an_observation_that_is_not_finite_is_refused():
    env, inner = counter()
    inner.broken_at = 3
    env.reset()
    env.step(torch.zeros(3, 2))
    env.step(torch.zeros(3, 2))
    with pytest.raises(SlipstreamError, match=r"nan in component 3 .*'state' in environment 1 at"):
        env.step(torch.zeros(3, 2))


def test_it_cannot_be_restored_and_says_so():
    env, _ = counter(prev_action=True)
    env.reset()
    env.step(torch.zeros(3, 2))
    assert not env.load_state_dict(env.state_dict())
    assert env.restarted.all()
    assert not env.current_obs["state"].any()


def test_the_batch_of_the_documentation_works(capsys):
    page = (Path(__file__).parents[2] / "docs" / "bring-your-own-environment.md").read_text()
    (code,) = (block.code for block in blocks(page) if "VectorEnv" in block.code)
    exec(compile(code, "bring-your-own-environment.md", "exec"), {"__name__": "__main__"})
    succeeded, num_episodes = map(int, capsys.readouterr().out.split(" of "))
    assert num_episodes == 64
    assert succeeded > 55
