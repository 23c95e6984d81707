"""The statistics of a Stable-Baselines3 `VecNormalize`, read without running what its pickle says.

A pickle is a program: loading one runs whatever functions it names. The unpickler here knows a
few names only, hands out numpy arrays and scalars for numpy's and inert stand-ins for the classes
of Stable-Baselines3 and Gymnasium, and refuses every other name before anything is called.
"""

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from slipstream.errors import SlipstreamError


@dataclass(frozen=True)
class Statistics:
    """What a `VecNormalize` does to observations and rewards.

    Attributes:
        mean, var: of the observation, (n,) float64; None if it leaves observations alone.
        clip: bound of the normalized observation.
        reward_scale: what the rewards are divided by; 1 if it leaves them alone.
    """

    mean: np.ndarray | None
    var: np.ndarray | None
    clip: float
    reward_scale: float


def read_statistics(path: Path) -> Statistics:
    """Read a file that `VecNormalize.save` wrote.

    Raises:
        SlipstreamError: no such file, no such statistics in it, or a pickle that names anything
            beyond them; nothing of that was run.
    """
    try:
        with path.open("rb") as file:
            found = _Unpickler(file).load()
    except OSError as error:
        raise SlipstreamError(
            f"cannot read {path}: {error.strerror}; name the file that VecNormalize.save() wrote, "
            "or none if the policy was trained without one"
        ) from error
    except _ForbiddenError as error:
        raise SlipstreamError(
            f"{path} is refused: it is a pickle that names {error}, which has no place in "
            "VecNormalize statistics, and nothing of it was run; give a file that "
            "VecNormalize.save() wrote"
        ) from error
    except Exception as error:  # a damaged pickle can raise anything
        raise SlipstreamError(
            f"{path} cannot be read as VecNormalize statistics ({type(error).__name__}); give a "
            "file that VecNormalize.save() wrote"
        ) from error
    try:
        return _statistics(found)
    except (KeyError, TypeError, ValueError) as error:
        raise SlipstreamError(
            f"{path} holds no VecNormalize statistics of one vector ({error}); give a file that "
            "VecNormalize.save() wrote for an environment whose observation is a vector"
        ) from error


def _statistics(found: Any) -> Statistics:
    state = _state(found, "VecNormalize")
    epsilon = float(state["epsilon"])
    mean = var = None
    if state.get("norm_obs", True):
        rms = _state(state["obs_rms"], "RunningMeanStd")
        mean, var = _vector(rms["mean"]), _vector(rms["var"]) + epsilon
    scale = 1.0
    if state.get("norm_reward", True):
        variance = float(_state(state["ret_rms"], "RunningMeanStd")["var"])
        scale = float(np.sqrt(variance + epsilon))
    return Statistics(mean, var, float(state["clip_obs"]), scale)


def _state(value: Any, name: str) -> dict[str, Any]:
    """The attributes of a stand-in for the class `name`."""
    if not isinstance(value, _Inert) or value.name != name or not isinstance(value.state, dict):
        raise TypeError(f"{name} expected, {getattr(value, 'name', type(value).__name__)} found")
    return value.state


def _vector(value: Any) -> np.ndarray:
    if not isinstance(value, np.ndarray) or value.ndim != 1 or value.dtype.kind != "f":
        shape = getattr(value, "shape", type(value).__name__)
        raise TypeError(f"a vector expected, {shape} found")
    if not np.isfinite(value).all():
        raise ValueError("not finite")
    return value.astype(np.float64)


class _ForbiddenError(pickle.UnpicklingError):
    """A name that the unpickler does not know."""


class _Inert:
    """Stands for an object of a named class: takes what it is given and does nothing with it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


def _class_of(name: str) -> type[_Inert]:
    """What a pickle may make an object of, by calling it or by `cls.__new__(cls)`."""

    def new(cls: type[_Inert], *args: Any, **kwargs: Any) -> _Inert:
        made = object.__new__(_Inert)
        _Inert.__init__(made, name)
        return made

    return type(name, (_Inert,), {"__new__": new, "__init__": lambda *_, **__: None})


_STAND_INS = {
    ("stable_baselines3.common.vec_env.vec_normalize", "VecNormalize"),
    ("stable_baselines3.common.running_mean_std", "RunningMeanStd"),
    ("gymnasium.spaces.box", "Box"),
    ("gymnasium.spaces.dict", "Dict"),
    ("gym.spaces.box", "Box"),
    ("gym.spaces.dict", "Dict"),
    ("gym.utils.seeding", "RandomNumberGenerator"),
    ("numpy.random._pickle", "__generator_ctor"),
    ("numpy.random._pickle", "__bit_generator_ctor"),
    ("numpy.random._pickle", "__randomstate_ctor"),
    ("numpy.random._pcg64", "PCG64"),
    ("numpy.random._mt19937", "MT19937"),
    ("numpy.random._philox", "Philox"),
    ("numpy.random._sfc64", "SFC64"),
    ("numpy.random.bit_generator", "__pyx_unpickle_SeedSequence"),
    ("numpy.random.bit_generator", "SeedSequence"),
}


def _known_names() -> dict[tuple[str, str], Callable[..., Any]]:
    """What numpy pickles its arrays and scalars by, in its old and new modules.

    The functions are wrapped afresh, so that a pickle cannot set attributes of numpy's own.
    """
    from numpy._core import multiarray, numeric

    def reconstruct(*args: Any) -> Any:
        return multiarray._reconstruct(*args)  # pyright: ignore

    def scalar(*args: Any) -> Any:
        return multiarray.scalar(*args)  # pyright: ignore

    def frombuffer(*args: Any) -> Any:
        return numeric._frombuffer(*args)  # pyright: ignore

    names: dict[tuple[str, str], Callable[..., Any]] = {
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("collections", "OrderedDict"): dict,
    }
    for core in ("numpy.core", "numpy._core"):
        names[f"{core}.multiarray", "_reconstruct"] = reconstruct
        names[f"{core}.multiarray", "scalar"] = scalar
        names[f"{core}.numeric", "_frombuffer"] = frombuffer
    return names


class _Unpickler(pickle.Unpickler):
    """Knows numpy's arrays and a few inert classes, and nothing else."""

    def __init__(self, file: Any) -> None:
        super().__init__(file)
        self._known = _known_names()

    def find_class(self, module_name: str, global_name: str) -> Any:
        """What a name in the pickle stands for."""
        name = (module_name, global_name)
        if name in self._known:
            return self._known[name]
        if name in _STAND_INS:
            return _class_of(global_name)
        raise _ForbiddenError(f"{module_name}.{global_name}")

    def persistent_load(self, pid: Any) -> Any:
        """No pickle of statistics refers to objects elsewhere."""
        raise _ForbiddenError("an object outside of it")
