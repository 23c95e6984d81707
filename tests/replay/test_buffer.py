import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from slipstream.errors import SlipstreamError
from slipstream.replay import ReplayBuffer

from .reference import SPEC, Recorder


def check(recorder: Recorder, context_length: int, batch_size: int = 64, seed: int = 0) -> None:
    """Every drawn window is one that the reference holds, content and masks included."""
    replay = recorder.replay
    windows = recorder.reference.windows(context_length)
    assert replay.num_transitions(context_length) == len(windows)
    if not windows or context_length + 1 > replay.rows_per_env:
        with pytest.raises(SlipstreamError):
            replay.sample(4, context_length)
        return
    generator = torch.Generator().manual_seed(seed)
    batch = replay.sample(batch_size, context_length, generator=generator)
    identity = batch.window["state"].long().tolist()
    for i in range(batch_size):
        rows, valid, transitions = windows[tuple(identity[i][-2])]
        assert [tuple(row) for row in identity[i]] == rows
        assert batch.valid[i].tolist() == valid
        assert batch.window["rgb"][i, :, 0].tolist() == [[e % 256, s % 256] for _, e, s in rows]
        assert batch.mask[i].tolist() == [0.0] * (context_length - 1) + [1.0]
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


def play(recorder: Recorder, events) -> None:
    everyone = np.ones(recorder.num_envs, bool)
    recorder.begin(everyone)
    for kind, *args in events:
        if kind == "begin":
            recorder.begin(np.array(args[0]))
        elif kind == "resize":
            recorder.replay = recorder.replay.resized(*args)
            recorder.reference.keep(*args)
        else:
            acted, terminated, truncated = (np.array(flags) for flags in args)
            recorder.add(acted & recorder.running(), terminated, truncated)
            if not recorder.running().any():
                recorder.begin(everyone)


@settings(max_examples=120, deadline=None)
@given(histories(), st.integers(1, 8))
def test_windows_equal_the_reference(history, context_length):
    capacity, num_envs, events = history
    recorder = Recorder(capacity, num_envs)
    play(recorder, events)
    for context in {1, 2, context_length}:
        check(recorder, context)
