"""What is saved as a tree comes back as it was."""

import math
import random

import numpy as np
import pytest
import torch

from slipstream.checkpoint.tree import load_tree, save_tree
from slipstream.errors import SlipstreamError
from slipstream.replay import ReplayBuffer
from slipstream.spec import ArraySpec, EnvSpec


def same(one, other) -> bool:
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        pairs = zip(one, other, strict=True)
        return type(one) is type(other) and all(same(a, b) for a, b in pairs)
    if isinstance(one, float) and math.isnan(one):
        return math.isnan(other)
    return type(one) is type(other) and one == other


def test_a_tree_comes_back_as_it_was(tmp_path):
    shared = torch.arange(6.0)
    tree = {
        "scalars": [0, -1, 2**200, True, None, "text", 0.1, 1e-320, -0.0],
        "special": [math.inf, -math.inf, math.nan],
        "keys": {0: "zero", "0": "text", "$": 1, True: 2, None: torch.tensor(3)},
        "dtypes": {
            str(dtype): torch.ones(2, 3).to(dtype)
            for dtype in (
                torch.float64,
                torch.float16,
                torch.bfloat16,
                torch.int64,
                torch.uint8,
                torch.bool,
            )
        },
        "shapes": (torch.tensor(1.5), torch.zeros(0, 3), torch.arange(12.0).view(3, 4).T),
        "shared": [shared, shared, shared[2:]],
        "names": {"a.b": torch.tensor(1), "a": {"b": torch.tensor(2)}},
        "numpy": [
            np.arange(3, dtype=np.uint16),
            np.array(2.5),
            np.float32(0.1),
            np.int64(7),
            np.bool_(True),
            np.arange(6).reshape(2, 3).T,
        ],
        "nested": ({}, [], (), [[1, (2, 3)]]),
        "python": random.Random(3).getstate(),
        "generator": np.random.default_rng(5).bit_generator.state,
        "mersenne": np.random.RandomState(5).get_state(legacy=False),
        "torch": torch.Generator().manual_seed(2**62).get_state(),
    }
    save_tree(tmp_path / "tree", tree)
    loaded = load_tree(tmp_path / "tree")
    assert same(tree, loaded)
    assert math.copysign(1, loaded["scalars"][-1]) == -1
    assert sorted(path.name for path in (tmp_path / "tree").iterdir()) == [
        "state.json",
        "tensors.safetensors",
    ]


def test_what_is_loaded_can_be_written_to(tmp_path):
    save_tree(tmp_path, {"tensor": torch.zeros(3), "array": np.zeros(3)})
    loaded = load_tree(tmp_path)
    loaded["tensor"] += 1
    loaded["array"] += 1
    assert load_tree(tmp_path)["tensor"].sum() == 0


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": [1, object()]}, r"cannot hold a\.1, which is object"),
        ({"a": np.array(["text"])}, r"cannot hold a, which is <U4"),
        ({"a": {(1, 2): 3}}, r"cannot hold the key \(1, 2\) of a"),
    ],
)
def test_what_cannot_be_saved_is_named(tmp_path, value, message):
    with pytest.raises(TypeError, match=message):
        save_tree(tmp_path, value)


@pytest.mark.parametrize("fused", [True, False])
def test_an_optimizer_goes_on_bit_for_bit(tmp_path, fused):
    def build():
        torch.manual_seed(0)
        model = torch.nn.Linear(5, 3)
        return model, torch.optim.Adam(model.parameters(), lr=1e-2, fused=fused)

    def learn(model, optimizer, num_updates):
        generator = torch.Generator().manual_seed(1)
        for _ in range(num_updates):
            optimizer.zero_grad()
            model(torch.randn(4, 5, generator=generator)).square().sum().backward()
            optimizer.step()

    model, optimizer = build()
    learn(model, optimizer, 3)
    save_tree(tmp_path, {"model": model.state_dict(), "optimizer": optimizer.state_dict()})
    learn(model, optimizer, 3)

    resumed, resumed_optimizer = build()
    state = load_tree(tmp_path)
    resumed.load_state_dict(state["model"])
    resumed_optimizer.load_state_dict(state["optimizer"])
    learn(resumed, resumed_optimizer, 3)
    assert same(dict(model.state_dict()), dict(resumed.state_dict()))
    assert same(optimizer.state_dict(), resumed_optimizer.state_dict())


@pytest.mark.parametrize("num_envs", [1, 2])
def test_a_replay_comes_back_bit_for_bit(tmp_path, num_envs):
    spec = EnvSpec("test", {"state": ArraySpec((2,))}, (-1.0,), (1.0,))
    replay = ReplayBuffer(spec, 20 * num_envs, num_envs)
    rng = np.random.default_rng(0)
    replay.begin({"state": rng.normal(size=(num_envs, 2))})
    for step in range(33):
        flags = np.full(num_envs, step % 7 == 6)
        obs = {"state": rng.normal(size=(num_envs, 2))}
        replay.add(rng.normal(size=(num_envs, 1)), np.ones(num_envs), flags, flags, obs)
        if flags.any():
            replay.begin(obs)
    save_tree(tmp_path, {"replay": replay.state_dict()})
    loaded = ReplayBuffer(spec, 20 * num_envs, num_envs)
    loaded.load_state_dict(load_tree(tmp_path)["replay"])
    one, other = (
        buffer.sample(32, 3, generator=torch.Generator().manual_seed(0))
        for buffer in (replay, loaded)
    )
    assert torch.equal(one.window["state"], other.window["state"])
    assert torch.equal(one.valid, other.valid)


def test_tensors_that_are_not_safetensors_are_refused(tmp_path):
    save_tree(tmp_path, {"value": torch.zeros(3)})
    path = tmp_path / "tensors.safetensors"
    path.write_bytes(b"\xff" * path.stat().st_size)
    with pytest.raises(SlipstreamError, match="cannot be read"):
        load_tree(tmp_path)
