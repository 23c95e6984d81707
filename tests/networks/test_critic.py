import pytest
import torch

from slipstream.errors import SlipstreamError
from slipstream.networks import Normalizer
from slipstream.networks.critic import CriticConfig
from slipstream.stages.learners import frozen_copy
from tests.networks.policies import ACTION_DIM, OBS_DIM, critic_config, critic_of


def sample(length=3, last=1):
    torch.manual_seed(1)
    obs = {"state": torch.randn(5, length, OBS_DIM)}
    valid = torch.arange(length) >= torch.tensor([0, 1, 2, 0, 1])[:, None]
    return obs, valid, torch.rand(5, last, ACTION_DIM) * 2 - 1


@pytest.mark.parametrize("memory", ["none", "transformer", "lstm", "gru"])
@pytest.mark.parametrize("last", [1, 3])
@pytest.mark.parametrize("n_critics", [1, 2, 5])
def test_shapes_and_members(memory, last, n_critics):
    torch.manual_seed(0)
    critic = critic_of(critic_config(memory=memory, n_critics=n_critics), True)
    obs, valid, action = sample(last=last)
    values = critic(obs, valid, action)
    assert values.shape == (n_critics, 5, last)
    torch.testing.assert_close(critic(obs, valid, action, first=True), values[:1])


def test_without_memory_only_the_present_matters():
    torch.manual_seed(0)
    critic = critic_of(critic_config(), False)
    obs, valid, action = sample()
    assert critic.context_length == 1
    present = {"state": obs["state"][:, -1:]}
    torch.testing.assert_close(critic(obs, valid, action), critic(present, valid[:, -1:], action))


def test_with_memory_the_past_matters_and_padding_does_not():
    torch.manual_seed(0)
    critic = critic_of(critic_config(memory="transformer"), False)
    obs, valid, action = sample()
    values = critic(obs, valid, action)
    assert critic.context_length == 3
    past = {"state": obs["state"].clone()}
    past["state"][:, 0] += 1
    changed = (critic(past, valid, action) - values).abs().amax((0, 2))
    assert torch.equal(changed > 1e-6, valid[:, 0])
    poisoned = {"state": torch.where(valid[..., None], obs["state"], 1e9)}
    assert torch.equal(critic(poisoned, valid, action), values)


def test_layer_norm_default_and_override():
    for chosen, default, expected in (
        (None, True, True),
        (None, False, False),
        (False, True, False),
    ):
        critic = critic_of(critic_config(layer_norm=chosen), default)
        assert critic.ensemble.layer_norm is expected


def test_a_target_shares_the_normalizer_and_nothing_else():
    normalizer = Normalizer(OBS_DIM)
    critic = critic_of(critic_config(memory="transformer"), True, normalizers={"state": normalizer})
    target = frozen_copy(critic)
    assert target.inputs.normalizers["state"] is normalizer
    for one, other in zip(critic.parameters(), target.parameters(), strict=True):
        assert torch.equal(one, other) and one.data_ptr() != other.data_ptr()
        assert one.requires_grad and not other.requires_grad
    normalizer.observe(torch.randn(20, OBS_DIM) * 5)
    obs, valid, action = sample()
    torch.testing.assert_close(critic(obs, valid, action), target(obs, valid, action))


@pytest.mark.parametrize("fields", [{"n_critics": 0}, {"hidden": (0,)}])
def test_impossible_critics_are_refused(fields):
    with pytest.raises(SlipstreamError, match=next(iter(fields))):
        CriticConfig(**fields)
