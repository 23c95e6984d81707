"""Files that would run something when they are unpickled do not run it here."""

import base64
import io
import json
import pickle
import zipfile

import gymnasium as gym
import numpy as np
import pytest
import torch

from slipstream.accelerators import bring
from slipstream.accelerators.vecnormalize import read_statistics
from slipstream.errors import SlipstreamError
from tests.accelerators.models import (
    Shows,
    Touch,
    goes_off,
    library,
    pendulum,
    rewrite,
    run_config,
    vec_env,
    write_model,
)


def hostile_data(path, mark):
    """Every pickle in a model's JSON made one that makes a file."""
    with zipfile.ZipFile(path) as archive:
        data = json.loads(archive.read("data"))
    pickled = pickle.dumps(Touch(mark))
    assert goes_off(pickled, mark)
    count = 0
    for value in data.values():
        if isinstance(value, dict) and ":serialized:" in value:
            value[":serialized:"] = base64.b64encode(pickled).decode()
            count += 1
    assert count > 5
    return rewrite(path, data=json.dumps(data).encode())


def test_pickles_in_a_models_data_are_never_loaded(tmp_path):
    _, path = write_model(tmp_path, "SAC")
    mark = tmp_path / "ran"
    hostile = hostile_data(path, mark)
    brought = bring(run_config(f"sb3:{hostile}"), pendulum())
    assert brought is not None and brought.learns
    assert not mark.exists()
    # The library itself does load them: the file is as hostile as it is meant to be.
    with pytest.raises(Exception):  # noqa: B017 - it fails somewhere behind that
        library("SAC").load(hostile)
    assert mark.exists()


@pytest.mark.parametrize("part", ["policy", "pytorch_variables"])
@pytest.mark.parametrize("plain", [True, False], ids=["pickle", "torch"])
def test_pickles_in_place_of_weights_are_refused(part, plain, tmp_path):
    _, path = write_model(tmp_path, "SAC")
    mark = tmp_path / "ran"
    if plain:
        content = pickle.dumps({"actor.mu.weight": Touch(mark)})
        assert goes_off(content, mark)
    else:
        file = io.BytesIO()
        torch.save({"actor.mu.weight": Touch(mark), "more": torch.zeros(3)}, file)
        content = file.getvalue()
        torch.load(io.BytesIO(content), weights_only=False)
        assert mark.exists()
        mark.unlink()
    hostile = rewrite(path, **{part: content})
    with pytest.raises(
        SlipstreamError, match=rf"'{part}\.pth' is no plain .*nothing of it was run"
    ):
        bring(run_config(f"sb3:{hostile}"), pendulum())
    assert not mark.exists()


def statistics(**attributes):
    """What VecNormalize would pickle, made without it: state dicts of classes by their names."""
    return {
        "norm_obs": True,
        "norm_reward": False,
        "clip_obs": 10.0,
        "epsilon": 1e-8,
        "ret_rms": None,
        "obs_rms": None,
        **attributes,
    }


def as_vec_normalize(state):
    """A pickle of an object of stable_baselines3's VecNormalize with this state."""
    name = b"cstable_baselines3.common.vec_env.vec_normalize\nVecNormalize\n"
    return b"\x80\x04" + name + b")\x81" + pickle.dumps(state, protocol=4)[2:-1] + b"b."


def refused(content, tmp_path, mark):
    path = tmp_path / "vecnormalize.pkl"
    path.write_bytes(content)
    with pytest.raises(SlipstreamError) as error:
        read_statistics(path)
    assert not mark.exists() and "\n" not in str(error.value)
    return str(error.value)


def test_hostile_statistics_are_refused(tmp_path):
    mark = tmp_path / "ran"
    # Alone, and deep within what begins as honest statistics.
    for content in (
        pickle.dumps(Touch(mark)),
        pickle.dumps(Touch(mark), protocol=0),
        pickle.dumps([np.zeros(3), {"a": (Touch(mark),)}]),
    ):
        assert goes_off(content, mark)
        assert "nothing of it was run" in refused(content, tmp_path, mark)
    said = refused(as_vec_normalize(statistics(obs_rms=Touch(mark))), tmp_path, mark)
    assert "nothing of it was run" in said


@pytest.mark.parametrize(
    "name",
    [
        "os\nsystem",
        "builtins\neval",
        "builtins\ngetattr",
        "subprocess\nPopen",
        "numpy\nload",
        "numpy._core.multiarray\n_reconstruct.__globals__",
        "numpy\nndarray.tofile",
        "numpy.f2py.diagnose\nrun_command",
        "torch\nload",
        "stable_baselines3.common.vec_env.vec_normalize\nVecNormalize.load",
        "stable_baselines3.common.save_util\nload_from_pkl",
    ],
)
def test_no_other_name_is_handed_out(name, tmp_path):
    content = b"c" + name.encode() + b"\n)R."
    said = refused(content, tmp_path, tmp_path / "ran")
    assert f"names {name.replace(chr(10), '.')}, which has no place" in said
    stacked = pickle.dumps(name.split("\n")[0])[2:-1] + pickle.dumps(name.split("\n")[1])[2:-1]
    said = refused(
        b"\x80\x04" + stacked.replace(b"\x94", b"") + b"\x93)R.", tmp_path, tmp_path / "r"
    )
    assert "which has no place" in said


def test_numpys_own_functions_cannot_be_written_to(tmp_path):
    from numpy._core import multiarray

    path = tmp_path / "vecnormalize.pkl"
    path.write_bytes(b"cnumpy._core.multiarray\n_reconstruct\n}(Vmarked\nI1\nub.")
    with pytest.raises(SlipstreamError):
        read_statistics(path)
    assert not hasattr(multiarray._reconstruct, "marked")  # pyright: ignore


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "cannot be read as VecNormalize statistics"),
        (b"rubbish", "cannot be read as VecNormalize statistics"),
        (pickle.dumps({"mean": 0}), "holds no VecNormalize statistics of one vector"),
        (pickle.dumps(np.zeros(3)), "holds no VecNormalize statistics of one vector"),
        (as_vec_normalize({}), "holds no VecNormalize statistics of one vector"),
        (as_vec_normalize(statistics()), "RunningMeanStd expected"),
        (as_vec_normalize(3), "VecNormalize expected"),
    ],
)
def test_what_holds_no_statistics_is_told(content, said, tmp_path):
    assert said in refused(content, tmp_path, tmp_path / "ran")


def test_statistics_of_several_observations_are_told(tmp_path):
    made, dummy = vec_env().VecNormalize, vec_env().DummyVecEnv
    several = gym.spaces.Dict({"a": gym.spaces.Box(-1, 1, (3,))})
    made(dummy([lambda: Shows(several)])).save(str(tmp_path / "several.pkl"))
    with pytest.raises(SlipstreamError, match="no VecNormalize statistics of one vector"):
        read_statistics(tmp_path / "several.pkl")
    image = gym.spaces.Box(0, 255, (8, 8, 3), np.uint8)
    made(dummy([lambda: Shows(image)])).save(str(tmp_path / "image.pkl"))
    with pytest.raises(SlipstreamError, match=r"a vector expected, \(8, 8, 3\) found"):
        read_statistics(tmp_path / "image.pkl")
