import numpy as np
import pytest
import torch

from slipstream.errors import SlipstreamError
from slipstream.networks import BACKBONES, NetworksConfig, Normalizer
from slipstream.networks.cnn import CNNConfig
from slipstream.networks.inputs import ByKey, Inputs, normalizers_of
from slipstream.networks.mlp import MLPConfig
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


def test_any_key_may_name_a_module():
    keys = ["agent.pos", "agent%2Epos", "keys", "training", "state", "a/b"]
    modules = ByKey({key: Normalizer(i + 1) for i, key in enumerate(keys)})
    assert list(modules) == list(modules.keys()) == keys
    sizes = [len(module.state_dict()["mean"]) for module in modules.values()]
    assert sizes == [1, 2, 3, 4, 5, 6]
    assert all(modules[key] is module for key, module in modules.items())
    assert "agent" not in modules and "agent.pos" in modules
    assert "state.mean" in modules.state_dict()


def test_several_keys_lie_side_by_side():
    spec = {"state": ArraySpec((2,)), "goal": ArraySpec((1,))}
    inputs = Inputs(spec, ("goal", "state"), {}, CNNConfig())
    obs = {"state": torch.ones(4, 3, 2), "goal": torch.zeros(4, 3, 1)}
    assert inputs.size == 3
    assert inputs.frames(obs)[0, 0].tolist() == [0.0, 1.0, 1.0]


def test_an_image_is_encoded_once_and_lies_beside_vectors():
    torch.manual_seed(0)
    spec = {"rgb": ArraySpec((32, 32, 3), "uint8"), "state": ArraySpec((2,))}
    cnn = CNNConfig(channels=(4, 8), kernels=(4, 3), strides=(4, 2), embed_size=6)
    inputs = Inputs(spec, ("rgb", "state"), {}, cnn)
    images = torch.randint(0, 256, (5, 3, 32, 32, 3), dtype=torch.uint8)
    obs = {"rgb": images, "state": torch.ones(5, 3, 2)}
    frames = inputs.frames(obs)
    assert frames.shape == (5, 3, 8) and inputs.size == 8
    torch.testing.assert_close(frames[..., 6:], obs["state"])
    embedding = frames[..., :6]
    torch.testing.assert_close(embedding.mean(-1), torch.zeros(5, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(inputs.frames({k: v[2, 1] for k, v in obs.items()}), frames[2, 1])
    # An embedding that is there already is taken as it is.
    known = {"rgb.embedding": 2 * embedding, "state": obs["state"]}
    torch.testing.assert_close(inputs.frames(known)[..., :6], 2 * embedding)


@pytest.mark.parametrize("kind", BACKBONES)
def test_acting_on_images_equals_training(kind):
    torch.manual_seed(0)
    spec = EnvSpec("test", {"rgb": ArraySpec((24, 24, 3), "uint8")}, (-1.0,), (1.0,))
    cnn = CNNConfig(channels=(4,), kernels=(4,), strides=(4,), embed_size=6)
    networks = NetworksConfig(cnn=cnn, mlp=MLPConfig((16,), frame_stack=3))
    actor = actor_of(kind, networks, spec=spec)
    images = torch.randint(0, 256, (2, 7, 24, 24, 3), dtype=torch.uint8)
    whole = actor({"rgb": images}, torch.ones(2, 7, dtype=torch.bool), 7).mode
    carry = actor.initial_carry(2)
    for t in range(7):
        output, carry = actor.step({"rgb": images[:, t]}, carry)
        torch.testing.assert_close(output.mode, whole[:, t], rtol=1e-4, atol=1e-5)


def test_an_image_too_small_is_refused():
    spec = EnvSpec("test", {"rgb": ArraySpec((8, 8, 3), "uint8")}, (-1.0,), (1.0,))
    with pytest.raises(SlipstreamError, match=r"\(8, 8, 3\).*too small for layer 2"):
        actor_of("mlp", NetworksConfig(), spec=spec)


@pytest.mark.parametrize(
    "fields", [{"channels": (4,)}, {"strides": (4, 0, 2)}, {"embed_size": 0}, {"segment": 0}]
)
def test_impossible_encoders_are_refused(fields):
    with pytest.raises(SlipstreamError, match=next(iter(fields))):
        CNNConfig(**fields)


@pytest.mark.parametrize(
    ("clip", "normalized"),
    [(None, {"state.difference": 10.0}), (5.0, {"state": 5.0, "state.difference": 5.0})],
)
def test_differences_are_always_normalized(clip, normalized):
    shapes = {"rgb": (8, 8, 3), "state": (2,), "state.difference": (2,), "unread": (4,)}
    spec = {key: ArraySpec(shape) for key, shape in shapes.items()}
    found = normalizers_of(spec, ("rgb", "state", "state.difference"), clip)
    assert {key: each.clip for key, each in found.items()} == normalized
