import contextlib
from unittest import mock

import numpy as np
import psutil
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

from slipstream.errors import SlipstreamError
from slipstream.replay import ReplayBuffer
from slipstream.replay.storage import RowStorage
from slipstream.spec import ArraySpec, EnvSpec

from .reference import SPEC, Recorder

BACKENDS = [
    "numpy",
    "torch",
    pytest.param(
        "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
    ),
]


@contextlib.contextmanager
def indices_by(backend: str):
    """Yield a device; "torch" does on the CPU what is done on a GPU."""
    if backend != "torch":
        yield {"numpy": "cpu", "cuda": "cuda"}[backend]
        return
    build = RowStorage.__init__

    def build_off_host(self, *args):
        build(self, *args)
        self.on_host = False
        self.step, self.table = self.step.copy(), self.table.copy()

    with mock.patch.object(RowStorage, "__init__", build_off_host):
        yield "cpu"


def check(
    recorder: Recorder,
    context_length: int,
    batch_size: int = 64,
    seed: int = 0,
    loss_steps: int = 1,
) -> None:
    """Every drawn window is one that the reference holds, content and masks included."""
    replay = recorder.replay
    windows = recorder.reference.windows(context_length)
    assert replay.num_transitions(context_length) == len(windows)
    if not windows or context_length + 1 > replay.rows_per_env:
        with pytest.raises(SlipstreamError):
            replay.sample(4, context_length)
        return
    generator = torch.Generator(replay.device).manual_seed(seed)
    batch = replay.sample(batch_size, context_length, loss_steps, generator)
    identity = batch.window["state"].long().tolist()
    for i in range(batch_size):
        rows, valid, transitions = windows[tuple(identity[i][-2])]
        assert [tuple(row) for row in identity[i]] == rows
        assert batch.valid[i].tolist() == valid
        assert batch.window["rgb"][i, :, 0].tolist() == [[e % 256, s % 256] for _, e, s in rows]
        counted = [*[False] * (context_length - loss_steps), *valid[-loss_steps - 1 : -1]]
        assert (batch.mask[i] > 0).tolist() == counted
        assert batch.mask[i].sum().item() == pytest.approx(loss_steps)
        for column, (action, reward, terminated) in zip(
            range(context_length - len(transitions), context_length), transitions, strict=True
        ):
            assert batch.action[i, column].tolist() == pytest.approx(action)
            assert batch.reward[i, column].item() == pytest.approx(reward)
            assert batch.terminated[i, column].item() == terminated


@st.composite
def histories(draw):
    num_envs = draw(st.integers(1, 3))
    capacity = draw(st.integers(2, 14)) * num_envs + draw(st.integers(0, num_envs - 1))
    flags = st.lists(st.booleans(), min_size=num_envs, max_size=num_envs)
    mostly = st.lists(
        st.sampled_from([True, True, True, False]), min_size=num_envs, max_size=num_envs
    )
    rarely = st.lists(
        st.sampled_from([False, False, False, True]), min_size=num_envs, max_size=num_envs
    )
    step = st.tuples(st.just("add"), mostly, rarely, rarely)
    events = draw(
        st.lists(
            st.one_of(
                step,
                step,
                step,
                st.tuples(st.just("begin"), flags),
                st.tuples(
                    st.just("resize"),
                    st.integers(2 * num_envs, 16 * num_envs),
                    st.one_of(st.none(), st.integers(0, 40)),
                ),
            ),
            max_size=60,
        )
    )
    return capacity, num_envs, events


def taken_along(replay: ReplayBuffer, capacity: int, keep: int | None) -> ReplayBuffer:
    """A buffer of another capacity that goes on where this one stands."""
    other = ReplayBuffer(SPEC, capacity, replay.num_envs, replay.device)
    other.append(replay, other.newest_that_fit(replay, keep))
    return other


def play(recorder: Recorder, events) -> None:
    everyone = np.ones(recorder.num_envs, bool)
    recorder.begin(everyone)
    for kind, *args in events:
        if kind == "begin":
            recorder.begin(np.array(args[0]))
        elif kind == "resize":
            recorder.replay = taken_along(recorder.replay, *args)
            recorder.reference.keep(*args)
        else:
            acted, terminated, truncated = (np.array(flags) for flags in args)
            recorder.add(acted & recorder.running(), terminated, truncated)
            if not recorder.running().any():
                recorder.begin(everyone)


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=80, deadline=None)
@given(histories(), st.integers(1, 8))
@example((6, 2, [("add", [True] * 2, [False] * 2, [False] * 2)] * 4 + [("resize", 4, None)]), 1)
def test_windows_equal_the_reference(backend, history, context_length):
    capacity, num_envs, events = history
    with indices_by(backend) as device:
        recorder = Recorder(capacity, num_envs, device=device)
        play(recorder, events)
        for context in {1, 2, context_length}:
            for loss_steps in {1, context // 2 + 1, context}:
                check(recorder, context, loss_steps=loss_steps)


@pytest.mark.parametrize("backend", BACKENDS)
def test_windows_equal_the_reference_after_every_event(backend):
    """The search for whole windows goes on where it ended, so ask it often on one long history."""
    rng = np.random.default_rng(3)
    with indices_by(backend) as device:
        recorder = Recorder(60, 3, device=device)
        recorder.begin(np.ones(3, bool))
        for step in range(150):
            recorder.add(
                recorder.running() & (rng.random(3) < 0.9),
                rng.random(3) < 0.05,
                rng.random(3) < 0.05,
            )
            if step % 3 == 0:
                recorder.begin(~recorder.running() | (rng.random(3) < 0.03))
            for context in (1, 2, 5, 18):
                for loss_steps in {1, context // 2 + 1}:
                    check(recorder, context, batch_size=8, seed=step, loss_steps=loss_steps)


@settings(max_examples=60, deadline=None)
@given(histories(), st.integers(1, 5), st.integers(0, 2**31))
def test_a_loaded_state_goes_on_bit_for_bit(history, context_length, seed):
    capacity, num_envs, events = history
    events = [event for event in events if event[0] != "resize"]
    recorder = Recorder(capacity, num_envs)
    play(recorder, events)
    original = recorder.replay
    loaded = ReplayBuffer(SPEC, capacity, num_envs)
    junk = Recorder(capacity, num_envs, seed=1)  # what was in the buffer before must not show
    junk.replay = loaded
    play(junk, [("add", [True] * num_envs, [False] * num_envs, [False] * num_envs)] * 5)
    loaded.load_state_dict(original.state_dict())
    rng, running = np.random.default_rng(seed), recorder.running()
    for _ in range(2 * capacity):
        assert len(loaded) == len(original)
        number = original.num_transitions(context_length)
        assert loaded.num_transitions(context_length) == number
        if number and context_length < original.rows_per_env:
            one, other = (
                replay.sample(16, context_length, generator=torch.Generator().manual_seed(seed))
                for replay in (original, loaded)
            )
            for key in SPEC.obs:
                assert torch.equal(one.window[key], other.window[key])
            for name in ("action", "reward", "terminated", "valid", "mask"):
                assert torch.equal(getattr(one, name), getattr(other, name))
        ended = rng.random(num_envs) < 0.2
        action = rng.uniform(-1, 1, (num_envs, 2)).astype(np.float32)
        reward = rng.normal(size=num_envs).astype(np.float32)
        first_obs, next_obs = (
            {
                "state": rng.normal(size=(num_envs, 3)).astype(np.float32),
                "rgb": rng.integers(256, size=(num_envs, 1, 2), dtype=np.uint8),
            }
            for _ in range(2)
        )
        for replay in (original, loaded):
            replay.add(action, reward, ended, ended, next_obs, running)
            replay.begin(first_obs, ended | ~running)
        running[:] = True


@pytest.mark.parametrize("num_envs", [1, 3])
def test_draws_are_uniform_over_eligible_transitions(num_envs):
    recorder = Recorder(40 * num_envs, num_envs)
    rng = np.random.default_rng(0)
    recorder.begin(np.ones(num_envs, bool))
    for _ in range(100):
        recorder.add(np.ones(num_envs, bool), rng.random(num_envs) < 0.15, np.zeros(num_envs, bool))
        recorder.begin(~recorder.running())
    for context in (1, 4):
        eligible = recorder.reference.windows(context)
        generator = torch.Generator().manual_seed(0)
        batch = recorder.replay.sample(200 * len(eligible), context, generator=generator)
        drawn = [tuple(row) for row in batch.obs["state"][:, -1].long().tolist()]
        counts = {key: 0 for key in eligible}
        for key in drawn:
            counts[key] += 1
        assert stats.chisquare(list(counts.values())).pvalue > 0.01
        newest = max((key for key in eligible if key[0] == 0), key=lambda key: key[1:])
        first_steps = [key for key in eligible if key[2] == 0]
        assert first_steps
        assert min(counts[key] for key in (newest, *first_steps)) > 100


def one_env(capacity: int = 20) -> Recorder:
    recorder = Recorder(capacity, 1)
    recorder.begin(np.array([True]))
    return recorder


def step(recorder: Recorder, terminated: bool = False, truncated: bool = False) -> None:
    recorder.add(np.array([True]), np.array([terminated]), np.array([truncated]))


def test_an_early_window_is_padded_on_the_left():
    recorder = one_env()
    step(recorder)
    batch = recorder.replay.sample(2, context_length=4)
    assert batch.window["state"][0, :, 2].tolist() == [0, 0, 0, 0, 1]
    assert batch.valid[0].tolist() == [False, False, False, True, True]
    assert batch.obs["state"].shape == (2, 4, 3)
    assert batch.next_obs["rgb"].dtype == torch.uint8
    assert batch.action.shape == (2, 4, 2)
    assert batch.terminated.dtype == batch.reward.dtype == torch.float32


def test_only_the_terminal_flag_reaches_the_batch():
    for terminated, truncated in ((True, False), (False, True), (True, True)):
        recorder = one_env()
        step(recorder, terminated, truncated)
        assert recorder.replay.sample(1).terminated.item() == float(terminated)


def test_an_interrupted_episode_ends_as_truncated():
    recorder = one_env()
    step(recorder)
    recorder.begin(np.array([True]))
    step(recorder)
    batch = recorder.replay.sample(64, 3, generator=torch.Generator().manual_seed(0))
    assert len(recorder.replay) == 4
    assert set(batch.window["state"][:, -1, 1].tolist()) == {0.0, 1.0}
    assert (batch.window["state"][:, :, 1] == batch.window["state"][:, -1:, 1]).all()
    assert not batch.terminated.any()


def test_an_episode_without_a_step_leaves_no_row():
    recorder = one_env()
    recorder.begin(np.array([True]))
    assert len(recorder.replay) == 1
    step(recorder)
    assert recorder.replay.sample(1).window["state"][0, :, 1].tolist() == [1, 1]


def expected_weights(recorder: Recorder, context: int, loss_steps: int) -> dict[tuple, float]:
    """(env, episode, step) -> the step's share of an expected loss; 1 for an average one.

    In place of drawing at random, everything that can be drawn is drawn equally often.
    """
    replay = recorder.replay
    size = replay.num_transitions(context) * loss_steps

    def everything(high, shape, device, **_):
        return torch.arange(*shape, device=device) % high

    with mock.patch("torch.randint", everything):
        batch = replay.sample(size, context, loss_steps)
    found: dict[tuple, float] = {}
    for steps, weights in zip(batch.obs["state"].tolist(), batch.mask.tolist(), strict=True):
        for step, weight in zip(steps, weights, strict=True):
            if weight:
                found[tuple(step)] = found.get(tuple(step), 0.0) + weight
    mean = sum(found.values()) / len(found)
    return {step: weight / mean for step, weight in found.items()}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("num_envs", [1, 3])
@pytest.mark.parametrize(
    ("context", "loss_steps"), [(1, 1), (3, 2), (5, 5), (10, 8), (8, 6), (14, 14)]
)
@pytest.mark.parametrize("length", [1, 4, 6, 7, 13, 20])
def test_every_step_counts_the_same(backend, num_envs, context, loss_steps, length):
    """In episodes that end, are cut off, interrupted or still run, short and long."""
    with indices_by(backend) as device:
        recorder = Recorder(200 * num_envs, num_envs, device=device)
        everyone = np.ones(num_envs, bool)
        for end in ("terminated", "truncated", "interrupted", "running"):
            recorder.begin(everyone)
            for i in range(length):
                ends = everyone & (i == length - 1)
                recorder.add(everyone, ends & (end == "terminated"), ends & (end == "truncated"))
        found = expected_weights(recorder, context, loss_steps)
    assert len(found) == 4 * length * num_envs
    assert list(found.values()) == pytest.approx([1.0] * len(found))


def test_a_ring_cuts_off_weight_only_where_it_has_cut_off_an_episode():
    recorder = one_env(capacity=40)
    for _ in range(60):
        step(recorder)
    step(recorder, terminated=True)
    recorder.begin(np.array([True]))
    for _ in range(9):
        step(recorder)
    context, loss_steps = 6, 4
    found = expected_weights(recorder, context, loss_steps)
    usual = found[0, 1, 4]
    first = 61 - (40 - 10 - 1)  # the oldest step that is stored
    drawn_from = first + context - 1  # the oldest that a window can end with
    assert min(found)[2] == drawn_from - loss_steps + 1
    lighter = range(drawn_from - loss_steps + 1, drawn_from + loss_steps - 1)
    assert all(found[0, 0, i] < usual for i in lighter)
    others = [weight for key, weight in found.items() if key[1] or key[2] not in lighter]
    assert others == pytest.approx([usual] * len(others))


def test_short_episodes_fill_windows():
    """The loss steps lie in the episode where it has as many, and come first where it is padded."""
    recorder = one_env()
    for _ in range(3):
        step(recorder)
    batch = recorder.replay.sample(64, 4, loss_steps=2)
    newest = batch.window["state"][:, -2, 2].long().tolist()
    expected = {1: [0.0, 0.0, 4 / 3, 2 / 3], 2: [0.0, 0.0, 2 / 3, 4 / 3]}
    assert set(newest) == set(expected)
    assert batch.mask.flatten().tolist() == pytest.approx(
        [weight for last in newest for weight in expected[last]]
    )
    assert batch.loss_steps == 2
    whole = recorder.replay.sample(1, 4, loss_steps=4)
    assert whole.window["state"][0, :, 2].tolist() == [0, 0, 1, 2, 3]
    assert whole.mask[0].tolist() == pytest.approx([0.0, 4 / 3, 4 / 3, 4 / 3])


def test_a_resized_buffer_keeps_the_newest_rows_and_goes_on():
    recorder = one_env(capacity=50)
    for _ in range(30):
        step(recorder)
    small = taken_along(recorder.replay, 12, keep=6)
    assert len(small) == 6
    assert small.num_transitions() == 5
    assert small.num_transitions(context_length=3) == 3
    empty = taken_along(recorder.replay, 12, keep=0)
    assert (len(empty), empty.num_transitions()) == (1, 0)
    recorder.replay = empty
    step(recorder)
    assert empty.sample(1).window["state"][0, :, 2].tolist() == [30, 31]


def test_tensors_are_taken_as_arrays_are():
    replay = ReplayBuffer(SPEC, 10, 2)
    obs = {"state": torch.ones(2, 3), "rgb": torch.full((2, 1, 2), 7, dtype=torch.uint8)}
    replay.begin(obs)
    flags = torch.zeros(2, dtype=torch.bool)
    replay.add(torch.full((2, 2), 0.5), torch.ones(2), flags, flags, obs, np.array([True, False]))
    batch = replay.sample(1)
    assert batch.window["rgb"].tolist() == [[[[7, 7]], [[7, 7]]]]
    assert batch.action.tolist() == [[[0.5, 0.5]]]
    assert replay.num_transitions() == 1


@pytest.mark.parametrize(("capacity", "num_envs"), [(2, 1), (100, 3)])
def test_bytes_required_is_what_is_allocated(capacity, num_envs):
    replay = ReplayBuffer(SPEC, capacity, num_envs)
    allocated = sum(rows.untyped_storage().nbytes() for rows in replay._rows.tensors.values())
    assert ReplayBuffer.bytes_required(SPEC, capacity, num_envs) == allocated == replay.num_bytes


def test_more_bytes_than_there_are_are_refused_before_allocating():
    images = EnvSpec("images", {"rgb": ArraySpec((3, 512, 512), "uint8")}, (-1.0,), (1.0,))
    capacity = 2 * psutil.virtual_memory().total // images.obs["rgb"].num_bytes
    with (
        mock.patch("torch.zeros", side_effect=AssertionError("allocated")),
        pytest.raises(SlipstreamError, match=r"needs .* GiB .* replay_capacity of at most \d+"),
    ):
        ReplayBuffer(images, capacity)


@pytest.mark.parametrize(
    ("capacity", "num_envs", "message"),
    [
        (-5, 1, "replay_capacity is -5"),
        (1, 1, "at least 2"),
        (7, 4, "at least 8"),
        (2**31, 1, "less than"),
        (10, 0, "num_envs is 0"),
    ],
)
def test_impossible_sizes_are_refused(capacity, num_envs, message):
    with pytest.raises(SlipstreamError, match=message):
        ReplayBuffer(SPEC, capacity, num_envs)


def test_impossible_draws_are_refused():
    recorder = one_env(capacity=8)
    with pytest.raises(SlipstreamError, match=r"no transition .* 1 stored rows"):
        recorder.replay.sample(4)
    step(recorder)
    for sizes, message in (
        ((4, 8), "context_length 8 is longer than the replay, which holds 8 rows"),
        ((4, 0), "context_length is 0"),
        ((0,), "batch_size is 0"),
        ((4, 3, 4), "loss_steps is 4: use 1 to 3"),
    ):
        with pytest.raises(SlipstreamError, match=message):
            recorder.replay.sample(*sizes)  # pyright: ignore[reportArgumentType]
    with pytest.raises(SlipstreamError, match="keep is -1"):
        taken_along(recorder.replay, 8, keep=-1)
    step(recorder, terminated=True)
    with pytest.raises(SlipstreamError, match=r"\[0\] acted without an episode"):
        step(recorder)


def test_a_state_of_another_shape_is_refused():
    state = one_env().replay.state_dict()
    wider = EnvSpec(
        "wider", {**SPEC.obs, "state": ArraySpec((4,))}, SPEC.action_low, SPEC.action_high
    )
    for replay, message in (
        (ReplayBuffer(SPEC, 30), "capacity 20, this one 30"),
        (ReplayBuffer(SPEC, 20, 2), "num_envs 1, this one 2"),
        (ReplayBuffer(wider, 20), r"\[3\] torch.float32 for obs.state, this one \[4\]"),
    ):
        with pytest.raises(SlipstreamError, match=message):
            replay.load_state_dict(state)
