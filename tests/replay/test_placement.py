"""Where a replay lies: what fits, what is refused, and that the same is drawn from anywhere."""

import os
from unittest import mock

import numpy as np
import pytest
import torch

from slipstream.errors import SlipstreamError
from slipstream.replay import Placement, ReplayBuffer, placement
from slipstream.spec import ArraySpec, EnvSpec
from tests.replay.reference import SPEC, Recorder

IMAGES = EnvSpec("images", {"rgb": ArraySpec((64, 64, 3), "uint8")}, (-1.0,), (1.0,))
CUDA = torch.device("cuda:0")


def filled(where: Placement) -> ReplayBuffer:
    recorder = Recorder(40, 2)
    recorder.replay = ReplayBuffer(SPEC, 40, 2, placement=where)
    recorder.begin(np.ones(2, bool))
    for t in range(50):
        recorder.add(np.ones(2, bool), np.array([t % 7 == 6, False]), np.array([False, t % 5 == 4]))
        recorder.begin(~recorder.running())
    return recorder.replay


@pytest.mark.parametrize("wanted", ["host", "disk", "auto"])
def test_the_same_is_drawn_wherever_rows_lie(wanted, tmp_path):
    here, there = filled(Placement("device")), filled(Placement(wanted, tmp_path))
    assert there.where == ("device" if wanted == "auto" else wanted)
    again = ReplayBuffer(SPEC, 40, 2, placement=Placement(wanted, tmp_path))
    again.load_state_dict(there.state_dict())
    for replay in (there, again):
        for seed in range(5):
            one, two = (
                each.sample(30, 4, 2, torch.Generator().manual_seed(seed))
                for each in (here, replay)
            )
            for key, value in one.window.items():
                assert torch.equal(value, two.window[key])
            for name in ("action", "reward", "terminated", "valid", "mask"):
                assert torch.equal(getattr(one, name), getattr(two, name))


def test_a_file_takes_its_room_at_once_and_leaves_nothing_behind(tmp_path):
    folder = tmp_path / "replay"
    with mock.patch("os.posix_fallocate", wraps=os.posix_fallocate) as taken:
        replay = ReplayBuffer(SPEC, 40, placement=Placement("disk", folder))
    assert sum(call.args[2] for call in taken.call_args_list) == replay.num_bytes
    assert list(folder.iterdir()) == []
    with (
        mock.patch("os.posix_fallocate", side_effect=OSError(28, "No space left on device")),
        pytest.raises(SlipstreamError, match="No space left"),
    ):
        ReplayBuffer(SPEC, 40, placement=Placement("disk", folder))


def free(**gib: float):
    """Pretend that so much is free in each place."""
    return mock.patch.object(
        placement, "free_bytes", lambda where, device, folder=None: int(gib[where] * 2**30)
    )


@pytest.mark.parametrize(
    ("gib", "expected"),
    [
        ({"device": 9, "host": 9, "disk": 9}, "device"),
        ({"device": 0.1, "host": 9, "disk": 9}, "host"),
        ({"device": 0.1, "host": 0.1, "disk": 9}, "disk"),
    ],
)
def test_auto_takes_the_fastest_place_that_has_room(gib, expected, tmp_path):
    with free(**gib):
        assert Placement("auto", tmp_path).choose(20_000, 12_288, CUDA) == expected
        if gib["host"] < 1:
            with pytest.raises(SlipstreamError, match=r"cuda:0, 0\.10 GiB are free in memory"):
                Placement("auto").choose(20_000, 12_288, CUDA)


def test_what_fits_nowhere_is_refused_with_what_would(tmp_path):
    with free(device=0.1, host=0.15, disk=0.2):
        with pytest.raises(SlipstreamError) as error:
            Placement("auto", tmp_path).choose(20_000, 12_288, CUDA)
        message = str(error.value)
        assert "needs 0.23 GiB" in message and "0.20 GiB are free on the disk" in message
        assert f"replay_capacity of at most {int(0.9 * 0.2 * 2**30 / 12_288)}" in message
        with pytest.raises(SlipstreamError, match="or another --replay-device"):
            Placement("device").choose(20_000, 12_288, CUDA)


def test_a_containers_limit_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(placement, "CGROUP", tmp_path)
    cpu = torch.device("cpu")
    unlimited = placement.free_bytes("host", cpu)
    (tmp_path / "memory.current").write_text("1000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert placement.free_bytes("host", cpu) > unlimited / 2
    (tmp_path / "memory.max").write_text("2001000\n")
    assert placement.free_bytes("device", cpu) == 2_000_000
    with pytest.raises(SlipstreamError, match=r"0\.00 GiB are free in memory"):
        ReplayBuffer(IMAGES, 1_000)


def test_a_cuda_device_keeps_some_room_for_networks():
    with mock.patch("torch.cuda.mem_get_info", return_value=(1000, 2000)):
        assert placement.free_bytes("device", CUDA) == 800
