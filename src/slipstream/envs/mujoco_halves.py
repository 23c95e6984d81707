"""Which components of a MuJoCo observation are positions, which velocities: asked of the model."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gymnasium as gym
import numpy as np

STATES = 3  # random ones that are looked at: one alone may hide what a component depends on
SPREAD = 0.3  # of their qpos and qvel about the first state
NUDGE = 0.01  # of one coordinate; small, for some tasks clip their velocities
SAME = 1e-9  # closer than this is unmoved: a substep moves a body by thousands of times that


def is_simulated(env: gym.Env[Any, Any]) -> bool:
    """Whether an environment is one of Gymnasium's `MujocoEnv`s, or acts like one."""
    needed = ("model", "data", "init_qpos", "set_state", "do_simulation", "_get_obs", "frame_skip")
    return all(hasattr(env.unwrapped, name) for name in needed)


def halves(env: gym.Env[Any, Any]) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """Nudge each coordinate of `qpos` and `qvel` in several states, and see what moves.

    A position moves with `qpos` and never with `qvel`, a velocity the other way round; what moves
    with both (velocities of bodies, forces) or with neither (what is constant) is none of them. Nor
    is what a step shows as of one substep ago, as MuJoCo does with the places of bodies, where the
    coordinates that it follows are also shown as they are: side by side the two would tell more.

    Args:
        env: one for which `is_simulated` holds. Its episode begins anew; its simulation and its
            random numbers are put back.

    Returns:
        The indices of the positions, those of the velocities, and how many components there are.

    Raises:
        ValueError: the observation is no vector, or differs from look to look at one state.
        Exception: whatever the environment raises when it is asked for an observation.
    """
    # Any: attributes of MujocoEnv.
    sim: Any = env.unwrapped
    rng = np.random.default_rng(0)
    by_qpos: list[np.ndarray] = []
    by_qvel: list[np.ndarray] = []
    late: list[np.ndarray] = []
    with _put_back(sim):
        sim.reset(seed=0)
        for _ in range(STATES):
            qpos = sim.init_qpos + rng.uniform(-SPREAD, SPREAD, sim.model.nq)
            qvel = sim.init_qvel + rng.uniform(-SPREAD, SPREAD, sim.model.nv)
            obs = _observe(sim, qpos, qvel)
            if _differ(obs, _observe(sim, qpos, qvel)).any():
                raise ValueError("it differs from look to look at one and the same state")
            nudged = [_observe(sim, moved, qvel) for moved in qpos + NUDGE * np.eye(len(qpos))]
            by_qpos.append(_differ(obs, np.stack(nudged)))
            nudged = [_observe(sim, qpos, moved) for moved in qvel + NUDGE * np.eye(len(qvel))]
            by_qvel.append(_differ(obs, np.stack(nudged)))
            late.append(_late(sim, qpos, qvel))
    # (coordinates, n): which components each coordinate moves, in any of the states.
    of_qpos, of_qvel, lags = _any(by_qpos), _any(by_qvel), _any(late)
    positions = _any(of_qpos) & ~_any(of_qvel)
    velocities = _any(of_qvel) & ~_any(of_qpos)
    return (
        _of_one_moment(positions, of_qpos, lags),
        _of_one_moment(velocities, of_qvel, lags),
        len(lags),
    )


def _of_one_moment(half: np.ndarray, moves: np.ndarray, lags: np.ndarray) -> tuple[int, ...]:
    """The components (n,) of a half, without the late ones of coordinates that are shown anyway."""
    shown = _any(moves[:, half & ~lags], axis=1)  # (coordinates,)
    echoes = lags & _any(moves & shown[:, None])
    return tuple(np.flatnonzero(half & ~echoes).tolist())


def _late(sim: Any, qpos: np.ndarray, qvel: np.ndarray) -> np.ndarray:
    """(n,) bool: what an observation after a step shows as of before its last substep."""
    sim.set_state(qpos, qvel)
    sim.do_simulation(np.zeros(sim.model.nu), sim.frame_skip)
    stepped = _vector(sim._get_obs())
    return _differ(stepped, _observe(sim, sim.data.qpos.copy(), sim.data.qvel.copy()))


def _observe(sim: Any, qpos: np.ndarray, qvel: np.ndarray) -> np.ndarray:
    sim.set_state(qpos, qvel)
    return _vector(sim._get_obs())


def _vector(obs: Any) -> np.ndarray:
    if not isinstance(obs, np.ndarray) or obs.ndim != 1:
        raise ValueError("it is no vector")
    return obs.astype(np.float64)  # a copy, where the environment shows its own memory


def _any(found: np.ndarray | list[np.ndarray], axis: int = 0) -> np.ndarray:
    return np.asarray(np.any(np.asarray(found), axis=axis))


def _differ(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.asarray(np.abs(a - b) > SAME)


@contextmanager
def _put_back(sim: Any) -> Iterator[None]:
    """Leave the simulation's state and the environment's random numbers as they were."""
    import mujoco  # such an environment is there, so it is installed

    # Any: the package's type stubs lack most of it.
    library: Any = mujoco
    kind = library.mjtState.mjSTATE_INTEGRATION
    state = np.empty(library.mj_stateSize(sim.model, kind))
    library.mj_getState(sim.model, sim.data, state, kind)
    random = sim._np_random, sim._np_random_seed
    try:
        yield
    finally:
        library.mj_setState(sim.model, sim.data, state, kind)
        library.mj_forward(sim.model, sim.data)
        sim._np_random, sim._np_random_seed = random
