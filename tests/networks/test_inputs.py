import numpy as np
import pytest
import torch

from slipstream.errors import SlipstreamError
from slipstream.networks import NetworksConfig, Normalizer
from slipstream.networks.inputs import StateInput
from slipstream.spec import ArraySpec, EnvSpec
from tests.networks.policies import actor_of


def test_normalizer_equals_numpy_over_all_data():
    rng = np.random.default_rng(0)
    data = rng.normal([5.0, -100.0, 0.01], [2.0, 30.0, 1e-3], (500, 3)).astype(np.float32)
    normalizer = Normalizer(3)
    for part in np.split(data, [1, 2, 10, 11, 300]):  # single rows first, as acting gives them
        normalizer.observe(torch.from_numpy(part))
    np.testing.assert_allclose(normalizer.mean, data.mean(0), rtol=1e-4)
    np.testing.assert_allclose(normalizer.var, data.var(0), rtol=1e-3)
    assert normalizer.count == 500
    expected = (data - data.mean(0)) / data.std(0)
    np.testing.assert_allclose(normalizer(torch.from_numpy(data)), expected, rtol=0.02, atol=0.02)


def test_normalizer_clips():
    normalizer = Normalizer(1, clip=3.0)
    assert normalizer(torch.tensor([[100.0], [-100.0]])).flatten().tolist() == [3.0, -3.0]


def test_normalizer_survives_saving():
    normalizer, other = Normalizer(2), Normalizer(2)
    normalizer.observe(torch.randn(10, 2) + 3)
    other.load_state_dict(normalizer.state_dict())
    x = torch.randn(4, 2)
    assert torch.equal(normalizer(x), other(x))


def test_several_keys_lie_side_by_side():
    spec = {"state": ArraySpec((2,)), "goal": ArraySpec((1,))}
    inputs = StateInput(spec, ("goal", "state"), {})
    obs = {"state": torch.ones(4, 3, 2), "goal": torch.zeros(4, 3, 1)}
    assert inputs.size == 3
    assert inputs.frames(obs)[0, 0].tolist() == [0.0, 1.0, 1.0]


def test_an_image_is_refused():
    spec = EnvSpec("test", {"rgb": ArraySpec((8, 8, 3), "uint8")}, (-1.0,), (1.0,))
    with pytest.raises(SlipstreamError, match=r"rgb.*vectors"):
        actor_of("mlp", NetworksConfig(), spec=spec)
