"""The probes pay what their documented values say."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from slipstream.envs import probe
from slipstream.envs.making import make_env

IDS = [f"slipstream/{name}-v0" for name in vars(probe) if name.startswith("Probe")]


def discounted(env_id, gamma, policy, seed=0, **env_kwargs):
    """First observation and discounted return of one episode; also whether it was truncated."""
    env = make_env(env_id, env_kwargs=env_kwargs)
    first = obs = env.reset(seed=seed)["state"][0]
    total, discount, seen = 0.0, 1.0, [obs]
    while True:
        result = env.step(np.array([[policy(seen)]]))
        total += discount * float(result.reward[0])
        discount *= gamma
        if result.episodes:
            return first, total, bool(result.truncated[0]), result.episodes[0]
        seen.append(result.obs["state"][0])


def test_all_probes_are_registered():
    assert len(IDS) == 8
    assert all(env_id in gym.registry for env_id in IDS)
    probe.register()  # a second time does no harm


@pytest.mark.parametrize("env_id", IDS)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_probes_keep_the_gymnasium_contract(env_id):
    if env_id != "slipstream/ProbeIdentity-v0":  # counts on over seeded resets, on purpose
        check_env(gym.make(env_id, disable_env_checker=True).unwrapped, skip_render_check=True)
    env = make_env(env_id, num_envs=2)
    env.reset(seed=0)
    for _ in range(30):
        result = env.step(np.ones((2, 1)))
        (shown,) = env.spec.obs
        assert env.spec.obs[shown].shape == result.obs[shown].shape[1:]


def test_constant():
    _, total, truncated, episode = discounted("slipstream/ProbeConstant-v0", 0.9, lambda _: 0.3)
    assert (total, truncated, episode.length) == (probe.ProbeConstant.value, False, 1)


def test_observation():
    seen = set()
    for seed in range(8):
        obs, total, _, _ = discounted("slipstream/ProbeObservation-v0", 0.9, lambda _: 0, seed)
        assert total == probe.ProbeObservation.value(obs[0])
        seen.add(float(obs[0]))
    assert seen == {-1.0, 1.0}


@pytest.mark.parametrize("gamma", [0.5, 1.0])
def test_discount(gamma):
    obs, total, truncated, episode = discounted("slipstream/ProbeDiscount-v0", gamma, lambda _: 0)
    assert total == probe.ProbeDiscount.value(obs[0], gamma) == gamma
    assert probe.ProbeDiscount.value(1.0, gamma) == 1.0
    assert (truncated, episode.length) == (False, 2)


def test_action():
    for seed in range(5):
        _, best, _, _ = discounted(
            "slipstream/ProbeAction-v0",
            0.9,
            lambda seen: probe.ProbeAction.best_action(seen[-1][0]),
            seed,
        )
        _, worse, _, _ = discounted(
            "slipstream/ProbeAction-v0",
            0.9,
            lambda seen: probe.ProbeAction.best_action(seen[-1][0]) + 0.1,
            seed,
        )
        assert best == pytest.approx(probe.ProbeAction.value, abs=1e-6)
        assert worse == pytest.approx(probe.ProbeAction.value - 0.01, abs=1e-6)


def test_truncation():
    gamma = 0.9
    _, total, truncated, episode = discounted("slipstream/ProbeTruncation-v0", gamma, lambda _: 0)
    assert (truncated, episode.length) == (True, 10)
    # What was paid before the cut, and the value of the state that it cut at.
    value = probe.ProbeTruncation.value(gamma)
    assert total + gamma**10 * value == pytest.approx(value)


@pytest.mark.parametrize("delay", [1, 5])
def test_memory(delay):
    remember, forget, cues = [], [], set()
    for seed in range(8):
        obs, total, _, episode = discounted(
            "slipstream/ProbeMemory-v0", 1.0, lambda seen: seen[0][0], seed, delay=delay
        )
        remember.append(total)
        assert (episode.length, episode.success) == (delay + 1, True)
        cues.add(float(obs[0]))
        _, total, _, episode = discounted(
            "slipstream/ProbeMemory-v0", 1.0, lambda _: 0.0, seed, delay=delay
        )
        forget.append(total)
        assert episode.success is False
    assert cues == {-1.0, 1.0}
    assert set(remember) == {probe.ProbeMemory.best_return}
    assert set(forget) == {probe.ProbeMemory.best_memoryless_return}


def test_memory_shows_its_cue_only_once():
    env = probe.ProbeMemory(delay=4)
    first, _ = env.reset(seed=1)
    rows = [env.step(np.zeros(1))[0] for _ in range(5)]
    assert abs(first[0]) == 1
    assert [row[0] for row in rows] == [0] * 5
    assert [row[1] for row in rows] == [0.25, 0.5, 0.75, 1, 1]


def test_identity_tells_where_each_row_comes_from():
    env = probe.ProbeIdentity(2, lengths=[2, 1], endings=["terminated", "both", "truncated"])
    rows = []
    for episode in range(6):
        obs, _ = env.reset()
        assert obs.tolist() == [2, episode, 0]
        terminated = truncated = False
        while not (terminated or truncated):
            obs, reward, terminated, truncated, _ = env.step(np.zeros(1))
            assert reward == probe.identity_reward(*(int(x) for x in obs))
        rows.append((int(obs[2]), terminated, truncated))
    assert [length for length, _, _ in rows] == [2, 1] * 3
    assert [ends for _, *ends in rows] == [[True, False], [True, True], [False, True]] * 2


def test_image():
    """The answer can be read off the picture, and a shifted picture has the same one."""
    returns, errors, places = [], [], set()
    env = probe.ProbeImage()
    for seed in range(400):
        image, _ = env.reset(seed=seed)
        red, green = (image[..., channel].any(0).argmax() for channel in (0, 1))
        _, reward, terminated, truncated, _ = env.step(
            np.array([env.best_action(int(green) - int(red))])
        )
        assert terminated and not truncated
        errors.append(reward - env.value)
        _, reward, *_ = env.step(np.zeros(1))
        returns.append(reward)
        places.add((int(red), int(green)))
    assert max(map(abs, errors)) < 1e-12
    assert len(places) > 200
    assert np.mean(returns) == pytest.approx(env.blind_return(), abs=0.02)
